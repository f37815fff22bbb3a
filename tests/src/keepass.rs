//! KeePass databases made by the real `keepassxc-cli`.

use crate::linked;
use crate::programs::needed;
use crate::sandbox::{Output, Sandbox};
use std::path::{Path, PathBuf};

pub const PASSWORD: &str = "the database's password\n";

/// What an entry with these fields is in an export of KeePass's; [`made`] takes such.
pub fn entry(title: &str, password: &str) -> String {
    format!(
        "<Entry><String><Key>Title</Key><Value>{title}</Value></String>\
         <String><Key>Password</Key><Value ProtectInMemory=\"True\">{password}</Value></String></Entry>"
    )
}

pub fn keepassxc(sandbox: &Sandbox, arguments: &[&str], input: &str) -> Output {
    let run = sandbox.command(needed("keepassxc-cli"), arguments).env("QT_QPA_PLATFORM", "offscreen");
    run.stdin(input).run()
}

/// A new database `home/NAME` with this in its root group. Custom data of the entry `pypi` makes keepassxc-cli write KDBX 4.
pub fn made(sandbox: &Sandbox, name: &str, inside: &str, password: &str, more: &[&str]) -> PathBuf {
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n\
         <KeePassFile><Meta><Generator>KeePassXC</Generator><DatabaseName>test</DatabaseName></Meta>\n\
         <Root><Group><UUID>AAAAAAAAAAAAAAAAAAAAAQ==</UUID><Name>Root</Name>\n\
         <Entry><UUID>AAAAAAAAAAAAAAAAAAAABQ==</UUID>\n\
         <CustomData><Item><Key>a</Key><Value>b</Value></Item></CustomData>\n\
         <String><Key>Title</Key><Value>pypi</Value></String>\n\
         <String><Key>UserName</Key><Value>__token__</Value></String>\n\
         <String><Key>Password</Key><Value ProtectInMemory=\"True\">tök \"1\"</Value></String>\n\
         <String><Key>empty</Key><Value></Value></String></Entry>\n{inside}</Group></Root></KeePassFile>\n"
    );
    let (xml, database) = (sandbox.write("home/x.xml", xml), sandbox.path(&format!("home/{name}")));
    let _ = std::fs::remove_file(&database);
    let arguments = ["import", "-p", xml.to_str().unwrap(), database.to_str().unwrap()];
    keepassxc(sandbox, &[&arguments[..], more].concat(), &password.repeat(2)).ok();
    database
}

/// Links it under the name `keys`.
pub fn link(sandbox: &Sandbox, database: &Path, password: &str, more: &[&str]) -> Output {
    let setting = format!("database={}", database.display());
    let arguments = ["keys", "--kind", "keepass", &setting, "--secret-fd", "password=5"];
    linked::add(sandbox, password, &[&arguments[..], more].concat()).run()
}
