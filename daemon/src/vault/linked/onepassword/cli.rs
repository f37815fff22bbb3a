//! By 1Password's program `op` 2: with the desktop app, which asks the person itself, or with a service account, whose
//! token is in the environment of `op` alone. `op` starts no helper that would keep what it read (`--cache=false`).
//!
//! The app asks once a process, so everything that can be is read with one: `op inject`.

use super::item::{Item, Summary};
use super::template::Template;
use super::{Place, SETS, listed, said};
use crate::vault::linked::links::Link;
use crate::vault::linked::pinned::Pinned;
use crate::vault::linked::runner::{Ended, Order};
use crate::vault::linked::{Call, Doing, Fault, LinkedVault, Listed, Read, SshKey};
use keyloan_protocol::limits;
use keyloan_protocol::names::{FieldName, ItemName};
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

/// A person may have to unlock the app.
const DEADLINE: Duration = Duration::from_secs(90);
const MOST: usize = limits::FRAME;

const TOKEN: &str = "service-account-token";

pub(super) struct Cli {
    op: Pinned,
    account: Option<String>,
    sets: String,
}

/// Whether `--account` takes this for the account: its "shorthand, sign-in address, account ID, or user ID".
fn is_account(account: &BTreeMap<String, Value>, name: &str) -> bool {
    let known = ["shorthand", "url", "account_uuid", "user_uuid"].map(|key| account.get(key)?.as_str());
    let url = known[1].and_then(|url| url.split('.').next());
    known.into_iter().chain([url]).flatten().any(|known| known == name)
}

impl Cli {
    pub(super) fn open(link: &Link) -> Result<Self, Fault> {
        let sets = link.setting(SETS).unwrap_or_default().to_owned();
        Ok(Self {
            op: link.program("op")?.clone(),
            account: link.setting("account").map(str::to_owned),
            sets,
        })
    }

    async fn run(&self, call: &Call, words: &[&str], input: Option<&SecretBytes>) -> Result<Ended, Fault> {
        let mut variables: Vec<(&str, OsString)> = call.desktop.clone();
        let mut arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
        arguments.insert(0, "--cache=false".into());
        match (call.secrets.expose(TOKEN), &self.account) {
            (Some(token), _) => {
                let token = OsString::from_vec(token.expose().to_vec());
                variables.push(("OP_SERVICE_ACCOUNT_TOKEN", token));
            }
            (None, Some(account)) => arguments.insert(0, format!("--account={account}").into()),
            (None, None) => {}
        }
        Order { program: &self.op, arguments, variables, input, most: MOST, deadline: DEADLINE }.run().await
    }

    async fn said(
        &self,
        call: &Call,
        words: &[&str],
        input: Option<&SecretBytes>,
        places: &[&Place],
    ) -> Result<SecretBytes, Fault> {
        let ended = self.run(call, words, input).await?;
        if ended.status == 0 { Ok(ended.output) } else { Err(said::fault(&ended, places)) }
    }

    fn parsed<T: DeserializeOwned>(&self, output: &SecretBytes) -> Result<T, Fault> {
        serde_json::from_slice(output.expose()).map_err(|_| self.strange())
    }

    fn strange(&self) -> Fault {
        Fault::Broken(format!("{} does not answer as op 2 does", self.op.path.display()))
    }

    /// With one process. `op` ends at the first reference that is wrong, and says which.
    async fn inject(
        &self,
        call: &Call,
        plain: Vec<String>,
        places: &[&Place],
    ) -> Result<Vec<SecretBytes>, Fault> {
        let no_random = || Fault::Broken("the system has no random numbers".to_owned());
        let template = Template::new(plain).ok_or_else(no_random)?;
        let output = self.said(call, &["inject"], Some(&template.text()), places).await?;
        template.values(output.expose()).ok_or_else(|| self.strange())
    }

    /// An item with all its fields, for names that cannot be written in a reference.
    async fn item(&self, call: &Call, place: &Place, places: &[&Place]) -> Result<Item, Fault> {
        let vault = format!("--vault={}", place.vault);
        let words = ["item", "get", "--format=json", &vault, "--", &place.item];
        let item: Item = self.parsed(&self.said(call, &words, None, places).await?)?;
        if item.is(&place.item) { Ok(item) } else { Err(place.no_item()) }
    }

    async fn items(&self, call: &Call, words: &[&str]) -> Result<Vec<Summary>, Fault> {
        let words = [&["item", "list", "--format=json"], words].concat();
        self.parsed(&self.said(call, &words, None, &[]).await?)
    }

    /// What can be had without the app asking: whether there is an account. A service account is asked itself.
    async fn look(&self, call: &Call) -> Result<(), Fault> {
        let version = self.run(call, &["--version"], None).await?;
        let version = String::from_utf8_lossy(version.output.expose()).trim().to_owned();
        let major: Option<u32> = version.split('.').next().and_then(|major| major.parse().ok());
        if major.is_none_or(|major| major < 2) {
            return Err(self.strange());
        }
        if call.secrets.expose(TOKEN).is_some() {
            let vaults = self.said(call, &["vault", "list", "--format=json"], None, &[]).await?;
            return self.parsed::<Vec<super::item::Vault>>(&vaults).map(drop);
        }
        let accounts = self.said(call, &["account", "list", "--format=json"], None, &[]).await?;
        let accounts: Vec<BTreeMap<String, Value>> = self.parsed(&accounts)?;
        match &self.account {
            _ if accounts.is_empty() => Err(Fault::SignedOut),
            Some(name) if !accounts.iter().any(|account| is_account(account, name)) => {
                Err(Fault::Refused(format!("op has no account '{name}'")))
            }
            _ => Ok(()),
        }
    }

    async fn read_all(&self, call: &Call, wanted: &[Reference]) -> Result<Vec<Read>, Fault> {
        let places: Vec<Result<Place, Fault>> =
            wanted.iter().map(|reference| Place::of(reference, &self.sets)).collect();
        let mut read: Vec<Option<Read>> = places.iter().map(|_| None).collect();
        let (mut together, mut plain) = (Vec::new(), Vec::new());
        let mut items: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
        for (at, place) in places.iter().enumerate() {
            match place {
                Err(fault) => read[at] = Some(Err(fault.clone())),
                Ok(place) => match place.plain() {
                    Some(reference) => {
                        plain.push(reference);
                        together.push((at, place));
                    }
                    None => items.entry((&place.vault, &place.item)).or_default().push(at),
                },
            }
        }
        if !together.is_empty() {
            let of: Vec<&Place> = together.iter().map(|(_, place)| *place).collect();
            let values = self.inject(call, plain, &of).await?;
            for ((at, _), value) in together.iter().zip(values) {
                read[*at] = Some(Ok(value));
            }
        }
        for wanted in items.values() {
            let of: Vec<(usize, &Place)> =
                wanted.iter().filter_map(|at| Some((*at, places[*at].as_ref().ok()?))).collect();
            let only: Vec<&Place> = of.iter().map(|(_, place)| *place).collect();
            let Some(first) = only.first() else { continue };
            let item = self.item(call, first, &only).await?;
            for (at, place) in of {
                read[at] = Some(item.read(place));
            }
        }
        let missing =
            |(value, reference): (Option<Read>, _)| value.unwrap_or_else(|| Err(Fault::no_item(reference)));
        Ok(read.into_iter().zip(wanted).map(missing).collect())
    }

    /// The public halves, with two processes: a list, and one template for all of it.
    async fn public_keys(&self, call: &Call) -> Result<Vec<SshKey>, Fault> {
        // A service account lists no more than one vault.
        let vault = format!("--vault={}", self.sets);
        let mut words = vec!["--categories=SSH Key"];
        if call.secrets.expose(TOKEN).is_some() {
            words.push(&vault);
        }
        let items = self.items(call, &words).await?;
        let id = |text: &str| super::is_id(text);
        if items.iter().any(|item| !id(&item.id) || !id(&item.vault.id)) {
            return Err(self.strange());
        }
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let plain =
            items.iter().map(|item| format!("op://{}/{}/public key", item.vault.id, item.id)).collect();
        let publics = self.inject(call, plain, &[]).await?;
        let mut names = HashSet::new();
        let twice: HashSet<String> =
            items.iter().map(title).filter(|title| !names.insert(title.clone())).collect();
        let key = |(item, public): (&Summary, &SecretBytes)| {
            let title = title(item);
            let by_id = title.split('/').count() != 2 || twice.contains(&title);
            let name = if by_id { format!("{}/{}", item.vault.id, item.id) } else { title };
            let public = str::from_utf8(public.expose()).ok()?.trim().to_owned();
            let field = FieldName::parse("private key?ssh-format=openssh").ok()?;
            Some(SshKey { item: ItemName::parse(&name).ok()?, field, passphrase: None, public })
        };
        Ok(items.iter().zip(&publics).filter_map(key).collect())
    }
}

fn title(item: &Summary) -> String {
    format!("{}/{}", item.vault.name, item.title)
}

impl LinkedVault for Cli {
    fn lasts(&self, at: &Reference) -> bool {
        super::lasts(at)
    }

    fn state<'a>(&'a self, call: &'a Call) -> Doing<'a, ()> {
        Box::pin(self.look(call))
    }

    fn list<'a>(&'a self, call: &'a Call) -> Doing<'a, Vec<Listed>> {
        Box::pin(async {
            let vault = format!("--vault={}", self.sets);
            let place = Place { vault: self.sets.clone(), ..Place::default() };
            let words = ["item", "list", "--format=json", &vault];
            match self.said(call, &words, None, &[&place]).await {
                Ok(items) => Ok(listed(self.parsed(&items)?, &self.sets)),
                // Nobody has to have a vault of that name.
                Err(Fault::NoItem(_)) => Ok(Vec::new()),
                Err(fault) => Err(fault),
            }
        })
    }

    fn read<'a>(&'a self, call: &'a Call, wanted: &'a [Reference]) -> Doing<'a, Vec<Read>> {
        Box::pin(self.read_all(call, wanted))
    }

    fn write<'a>(&'a self, _call: &'a Call, _at: &'a Reference, _value: &'a SecretBytes) -> Doing<'a, ()> {
        // `item edit FIELD=VALUE` shows the value to every program in `ps`, and with JSON it replaces the whole item.
        let cause = "op cannot change one field without risk to the others; a Connect server can";
        Box::pin(async move { Err(Fault::Unable(cause.to_owned())) })
    }

    fn ssh_keys<'a>(&'a self, call: &'a Call) -> Doing<'a, Vec<SshKey>> {
        Box::pin(self.public_keys(call))
    }

    fn patience(&self) -> Duration {
        DEADLINE
    }

    fn search(&self) -> Duration {
        DEADLINE
    }

    fn hint(&self, fault: &Fault) -> Option<String> {
        let hint = match fault {
            Fault::SignedOut => {
                "unlock the 1Password app and turn on Settings, Developer, Integrate with 1Password CLI"
            }
            Fault::Refused(_) | Fault::Unreachable(_) | Fault::Broken(_) => "try it by itself: op vault list",
            Fault::RateLimited { .. } => "a service account may read 1000 times an hour",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a double of op, for this test alone")]
    fn ssh_keys_are_their_public_halves_by_names_that_mean_one_item() {
        let directory = std::env::temp_dir().join(format!("keyloan-op-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir(&directory).unwrap();
        let id = |digit: char| digit.to_string().repeat(26);
        let item = |at: char, title: &str| serde_json::json!({"id": id(at), "title": title, "vault": {"id": id('v'), "name": "Work"}});
        let items = [item('1', "key"), item('2', "twice"), item('3', "twice"), item('4', "a/b")];
        let list = serde_json::to_string(&items).unwrap();
        let path = directory.join("op");
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in\n*'item list'*'--categories=SSH Key') echo '{list}' ;;\n\
             *inject) sed 's|{{{{ op://[^/]*/\\(.\\)[^/]*/public key }}}}|ssh-ed25519 AAAA\\1 c|g' ;;\nesac\n"
        );
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        let found =
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let op = Pinned::of(&path).await.unwrap();
                let cli = Cli { op, account: None, sets: "Sets".to_owned() };
                cli.public_keys(&Call::default()).await.unwrap()
            });
        let private =
            |key: &SshKey| key.field.as_str() == "private key?ssh-format=openssh" && key.passphrase.is_none();
        assert!(found.iter().all(private));
        let found: Vec<_> = found.iter().map(|key| (key.item.to_string(), key.public.clone())).collect();
        let by_id = |digit: char| format!("{}/{}", id('v'), id(digit));
        let names = ["Work/key".to_owned(), by_id('2'), by_id('3'), by_id('4')];
        let publics = ['1', '2', '3', '4'].map(|digit| format!("ssh-ed25519 AAAA{digit} c"));
        assert_eq!(found, names.into_iter().zip(publics).collect::<Vec<_>>());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
