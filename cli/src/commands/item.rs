//! `keyloan item …`: the local vault.

use crate::args::item::{At, Item, Kind};
use crate::client::{self, Connection};
use crate::exit::Failure;
use crate::output;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::request::{Alphabet, Request};
use keyloan_protocol::control::response::{FieldSummary, ItemSummary, ListedItem, Reply};
use keyloan_protocol::limits;
use keyloan_protocol::names::{FieldName, ItemName, VarName, VaultName, escaped};
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use std::io::{self, IsTerminal, Read};
use zeroize::Zeroizing;

pub(crate) fn item(item: Item) -> Result<(), Failure> {
    match item {
        Item::Set { public, at } => set(at, public),
        Item::Generate { kind, length, item, field } => generate(item, field, kind, length),
        Item::Totp { item, field } => totp(item, field),
        Item::Expires { item, day } => {
            let day = (day != "never").then_some(day);
            client::tell("note when an item expires", &Message::new(Request::ItemExpires { item, day }))
        }
        Item::Get { at } => get(at),
        Item::List { json, references, vault } => match vault.filter(|vault| !vault.is_local()) {
            Some(vault) => list_linked(vault, json.json, references),
            None => list(json.json, references),
        },
        Item::Show { item, json } => show(item, json.json),
        Item::Rm { item, field } => {
            client::tell("remove from the vault", &Message::new(Request::ItemRemove { item, field }))
        }
        Item::Mv { from, to } => {
            client::tell("rename an item", &Message::new(Request::ItemMove { from, to }))
        }
    }
}

/// The vault that a request names, and where in it.
fn placed(act: &str, at: At) -> Result<(Option<VaultName>, ItemName, FieldName), Failure> {
    let Reference { vault, item, field } = at.reference().map_err(|error| Failure::usage(act, error))?;
    Ok((Some(vault).filter(|vault| !vault.is_local()), item, field))
}

fn set(at: At, public: bool) -> Result<(), Failure> {
    let act = "store a value";
    let (vault, item, field) = placed(act, at)?;
    let message = Message::new(Request::ItemSet { item, field, public, vault });
    if io::stdin().is_terminal() {
        // The daemon asks for it on the terminal itself, unseen.
        return client::tell(act, &message);
    }
    let value = read_value(act)?;
    if value.expose().ends_with(b"\n") && !value.expose()[..value.len() - 1].contains(&b'\n') {
        output::note("the value ends with a newline, which was kept (printf '%s' gives none)");
    }
    client::tell(act, &message.with("value", value))
}

/// Standard input to its end, into a buffer of the largest size, so that it never grows.
fn read_value(act: &str) -> Result<SecretBytes, Failure> {
    let mut bytes = Zeroizing::new(vec![0; limits::FIELD_VALUE + 1]);
    let mut length = 0;
    let mut input = io::stdin().lock();
    while length < bytes.len() {
        match input.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::usage(act, format!("standard input: {error}"))),
        }
    }
    if length > limits::FIELD_VALUE {
        return Err(Failure::usage(act, "a value has at most 1 MiB"));
    }
    if length == 0 {
        return Err(Failure::usage(act, "standard input is empty; a value has at least 1 byte"));
    }
    Ok(SecretBytes::copy_of(&bytes[..length]))
}

fn get(at: At) -> Result<(), Failure> {
    let act = "give out a value";
    let (vault, item, field) = placed(act, at)?;
    let mut reply = client::ask(act, &Message::new(Request::ItemGet { item, field, vault }))?;
    let value = reply.take("value").ok_or_else(|| client::unexpected(act))?;
    output::bytes(value.expose())?;
    if output::is_terminal() { output::bytes(b"\n") } else { Ok(()) }
}

fn generate(item: ItemName, field: FieldName, kind: Kind, length: Option<usize>) -> Result<(), Failure> {
    let (alphabet, usual) = match kind {
        Kind::Password => (Alphabet::Password, 24),
        Kind::Token => (Alphabet::Token, 43),
        Kind::Hex => (Alphabet::Hex, 64),
        Kind::Digits => (Alphabet::Digits, 6),
    };
    let request = Request::ItemGenerate { item, field, alphabet, length: length.unwrap_or(usual) };
    client::tell("generate a value", &Message::new(request))
}

fn totp(item: ItemName, field: FieldName) -> Result<(), Failure> {
    let act = "give out a one-time password";
    let mut reply = client::ask(act, &Message::new(Request::ItemTotp { item, field }))?;
    let code = reply.take("value").ok_or_else(|| client::unexpected(act))?;
    output::bytes(code.expose())?;
    output::bytes(b"\n")?;
    if let Reply::Code { seconds } = reply.body {
        output::progress(&format!("good for another {seconds} s"));
    }
    Ok(())
}

fn items(act: &str, request: Request) -> Result<Vec<ItemSummary>, Failure> {
    let mut connection = Connection::open(act)?;
    connection.send(&Message::new(request), &[])?;
    let mut all = Vec::new();
    loop {
        match connection.reply()?.body {
            Reply::Items { items, more } => {
                all.extend(items);
                if !more {
                    return Ok(all);
                }
            }
            _ => return Err(client::unexpected(act)),
        }
    }
}

fn list(json: bool, references: bool) -> Result<(), Failure> {
    let items = items("list the items", Request::ItemList)?;
    if json {
        return output::json(&items);
    }
    if items.is_empty() {
        output::note("the vault is empty; store a first value: keyloan item set ITEM FIELD");
    }
    for item in &items {
        if references {
            for field in &item.fields {
                output::line(&field.reference)?;
            }
        } else {
            let fields: Vec<&str> = item.fields.iter().map(|field| field.field.as_str()).collect();
            output::line(&format!("{}  ({})", item.item, fields.join(", ")))?;
        }
    }
    Ok(())
}

fn list_linked(name: VaultName, json: bool, references: bool) -> Result<(), Failure> {
    let act = "list a vault's items";
    let mut connection = Connection::open(act)?;
    connection.send(&Message::new(Request::VaultItems { name }), &[])?;
    let mut all: Vec<ListedItem> = Vec::new();
    loop {
        let Reply::Listed { items, more } = connection.reply()?.body else {
            return Err(client::unexpected(act));
        };
        for item in items {
            match all.last_mut() {
                // The next part of an item with many fields.
                Some(last) if last.item == item.item => last.references.extend(item.references),
                _ => all.push(item),
            }
        }
        if !more {
            break;
        }
    }
    if json {
        return output::json(&all);
    }
    for item in &all {
        if references {
            item.references.iter().try_for_each(|reference| output::line(&escaped(reference, 600)))?;
        } else {
            output::line(&escaped(item.item.as_str(), 300))?;
        }
    }
    Ok(())
}

fn show(item: ItemName, json: bool) -> Result<(), Failure> {
    let items = items("show an item", Request::ItemShow { item })?;
    if json {
        return output::json(&items);
    }
    for item in &items {
        let expires = item.expires.as_ref().map(|day| format!(", expires {day}")).unwrap_or_default();
        output::line(&format!("{}  changed {}{expires}", item.item, item.changed))?;
        for field in &item.fields {
            output::line(&format!("  {}  {}", field.reference, describe(field)))?;
        }
    }
    Ok(())
}

fn describe(field: &FieldSummary) -> String {
    match &field.value {
        Some(value) => format!("= {}", escaped(value, 200)),
        None if !field.variables.is_empty() => {
            let names: Vec<&str> = field.variables.iter().map(VarName::as_str).collect();
            format!("sets {}", names.join(" "))
        }
        None => format!("{} bytes{}", field.length, if field.public { "" } else { ", secret" }),
    }
}
