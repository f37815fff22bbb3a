//! Names and fields of items, without a vault.

use super::*;

fn items(items: &Value) -> Items {
    let folders = json!({ "data": [
        { "id": "f1", "name": "Work" }, { "id": "f2", "name": "Home" }, { "id": "f3", "name": "Work" },
        { "id": "", "name": "No Folder" },
    ]});
    Items::new(json!({ "data": items })).unwrap().with_folders(folders).unwrap()
}

fn names(of: &Items) -> Vec<String> {
    of.list().into_iter().map(|(name, _)| name.to_string()).collect()
}

fn id(digit: u8) -> String {
    format!("{digit:08}-0000-4000-8000-000000000000")
}

fn reference(field: &str) -> Reference {
    Reference::parse(&format!("bw://web/{field}")).unwrap()
}

fn value(item: &Value, field: &str) -> Result<String, Fault> {
    super::field(item, &reference(field)).map(|value| String::from_utf8(value.expose().to_vec()).unwrap())
}

#[test]
fn an_item_is_called_by_its_title_its_folder_or_its_id_and_by_one_alone() {
    let all = items(&json!([
        { "id": id(1), "name": "web", "folderId": "f1" },
        { "id": id(2), "name": "git", "folderId": "f1" },
        { "id": id(3), "name": "git", "folderId": "f2" },
        { "id": id(4), "name": "db", "folderId": "f1" },
        { "id": id(5), "name": "db", "folderId": "f3" },
        { "id": id(6), "name": "two\nlines" },
        { "id": id(7), "name": "x", "folderId": "f1" },
        { "id": id(8), "name": "x" },
        { "id": id(9), "name": "Work/x" },
    ]));
    let expected = [
        id(4),
        id(5),
        id(6),
        id(7),
        id(8),
        "Home/git".into(),
        "Work/git".into(),
        "Work/x".into(),
        "web".into(),
    ];
    assert_eq!(names(&all), expected);
    for (name, whose) in [("web", 1), ("Work/git", 2), ("Work/x", 9), (&*id(7), 7)] {
        assert_eq!(all.named(&ItemName::parse(name).unwrap()).unwrap()["id"], id(whose));
    }
    for other in ["Work/web", &id(1), "Work/db", "Web", "No Folder/x"] {
        assert!(matches!(all.named(&ItemName::parse(other).unwrap()), Err(Fault::NoItem(_))), "{other}");
    }
    let several = all.named(&ItemName::parse("git").unwrap()).unwrap_err();
    let Fault::Ambiguous { candidates, .. } = several else { panic!("{several}") };
    assert_eq!(candidates, ["Work/git", "Home/git"]);
}

#[test]
fn a_title_that_is_another_items_id_takes_nothing_from_it() {
    let all = items(&json!([
        { "id": id(1), "name": "git" }, { "id": id(2), "name": "git" }, { "id": id(3), "name": id(1) },
    ]));
    assert_eq!(all.named(&ItemName::parse(&id(1)).unwrap()).unwrap()["id"], id(1));
    assert_eq!(all.named(&ItemName::parse(&id(3)).unwrap()).unwrap()["id"], id(3));
}

#[test]
fn own_fields_come_before_added_ones_and_what_is_there_twice_is_ambiguous() {
    let item = json!({ "type": 1, "notes": null, "login": { "username": "u", "password": null, "totp": "" }, "fields": [
        { "name": "username", "value": "other", "type": 0 },
        { "name": "password", "value": "added", "type": 1 },
        { "name": "twice", "value": "1", "type": 0 }, { "name": "twice", "value": "2", "type": 0 },
        { "name": "empty", "value": null, "type": 0 }, { "name": "linked", "value": null, "type": 3 },
        { "name": null, "value": "x", "type": 0 },
    ]});
    assert_eq!(value(&item, "username").unwrap(), "u");
    assert_eq!(value(&item, "password").unwrap(), "added");
    assert_eq!(value(&item, "totp").unwrap(), "");
    assert_eq!(value(&item, "empty").unwrap(), "");
    assert!(matches!(value(&item, "twice"), Err(Fault::Ambiguous { .. })));
    for none in ["notes", "linked", "vars", "name"] {
        assert!(matches!(value(&item, none), Err(Fault::NoField { .. })), "{none}");
    }
}

#[test]
fn only_what_cannot_be_a_password_is_a_set_of_variables() {
    let note = |notes: &str| json!({ "type": 2, "notes": notes });
    for set in ["# mine\nA=1", "\nA=1", " \r\nA=1"] {
        assert_eq!(value(&note(set), "vars").unwrap(), set);
    }
    for other in ["A=1\nB=2", "QUJDREVGR0g="] {
        assert!(matches!(value(&note(other), "vars"), Err(Fault::NoField { .. })), "{other}");
    }
    let login = json!({ "type": 1, "notes": "# x\nA=1", "login": { "password": "A=1" } });
    assert!(matches!(value(&login, "vars"), Err(Fault::NoField { .. })));
    let added =
        json!({ "type": 2, "notes": "# x\nA=1", "fields": [{ "name": "vars", "value": "B=2", "type": 1 }] });
    assert_eq!(value(&added, "vars").unwrap(), "B=2");
}

#[test]
fn a_changed_field_leaves_all_else_of_an_item_as_it_was() {
    let item = json!({ "id": id(1), "type": 1, "notes": "n", "odd": [1], "login": { "password": "old", "uris": [1] },
        "fields": [{ "name": "a", "value": "1", "type": 0, "linkedId": null }] });
    let mut expected = item.clone();
    expected["login"]["password"] = "new".into();
    assert_eq!(with_field(&item, &reference("password"), "new").unwrap(), expected);
    expected = item.clone();
    expected["fields"][0]["value"] = "2".into();
    assert_eq!(with_field(&item, &reference("a"), "2").unwrap(), expected);
    let added = with_field(&item, &reference("b"), "3").unwrap();
    assert!(holds(&added, &reference("b"), "3") && holds(&added, &reference("a"), "1"));
    assert_eq!(added["fields"][1]["type"], HIDDEN);
    let key = json!({ "type": 5, "sshKey": { "privateKey": "x" } });
    assert!(matches!(with_field(&key, &reference("privateKey"), "y"), Err(Fault::Unable(_))));
}
