//! Keys whose private half stays in a linked vault. The local vault has their public half and where the other is; that
//! is read behind an approval that is in the log, for one signature and the moment after it. It must be of the very
//! public half that was linked: whoever can write to that vault could else have the person sign with a key of theirs.

use super::keys::{PASSPHRASE_IN, PRIVATE_KEY_IN, PUBLIC_KEY, VaultKey, open};
use super::store::{COMMENT, public_field, written};
use super::{AgentRefusal, Broker};
use crate::approval::question::{Certainty, Question};
use crate::broker::items::check_title;
use crate::broker::{Act, Approved, Beyond, Client, Refusal};
use crate::policy::decide::Subject;
use crate::policy::rule::{Kind, Verdict};
use crate::requester::Requester;
use crate::signing::key_file::{self, KeyFileError};
use crate::signing::public_line::{public_line, read_public_line};
use crate::signing::{self, SigningKey};
use crate::vault::linked::{Fault, SshKey};
use crate::vault::local::index;
use crate::vault::local::item_file::Field;
use keyloan_protocol::control::response::Reply;
use keyloan_protocol::names::{ItemName, VaultName};
use keyloan_protocol::reference::Reference;
use keyloan_protocol::ssh_agent::key::PublicKey;
use keyloan_protocol::ssh_agent::private_key::PrivateKey;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Keys that one yes links.
const MOST: usize = 256;

/// Where a private half is, and what it is encrypted with, if it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Elsewhere {
    pub(crate) key: Reference,
    pub(crate) passphrase: Option<Reference>,
}

impl Elsewhere {
    /// Of linked vaults alone: the local one has keys of its own.
    pub(super) fn parse(key: &str, passphrase: Option<&str>) -> Option<Self> {
        let linked = |text: &str| Reference::parse(text).ok().filter(|reference| !reference.vault.is_local());
        let passphrase = match passphrase {
            Some(text) => Some(linked(text)?),
            None => None,
        };
        Some(Self { key: linked(key)?, passphrase })
    }

    pub(super) fn references(&self) -> impl Iterator<Item = &Reference> {
        std::iter::once(&self.key).chain(&self.passphrase)
    }

    /// What rules look at: whoever links it has it read for each signature.
    pub(super) fn reading(&self) -> impl Iterator<Item = (Kind, Subject)> {
        self.references().map(|reference| {
            let what = format!("read an ssh key for each signature: {reference}");
            (Kind::ItemRead, Subject::of_item(&what, &reference.subject()))
        })
    }

    /// For questions.
    pub(super) fn shown(&self) -> String {
        match &self.passphrase {
            Some(passphrase) => format!("half in {}, with the passphrase in {passphrase}", self.key),
            None => format!("half in {}", self.key),
        }
    }

    fn fields(&self) -> Result<Vec<Field>, Refusal> {
        let mut fields = vec![public_field(PRIVATE_KEY_IN, &self.key.to_string())?];
        if let Some(passphrase) = &self.passphrase {
            fields.push(public_field(PASSPHRASE_IN, &passphrase.to_string())?);
        }
        Ok(fields)
    }
}

/// A key that a linked vault offers, under the name that it gets here.
struct Offered {
    item: ItemName,
    elsewhere: Elsewhere,
    public: PublicKey,
    comment: Vec<u8>,
}

impl Broker {
    /// Reads a key for a signature. The vault may take a minute for it, and what was asked for may be gone by then.
    pub(super) async fn open_key_elsewhere(
        &self,
        client: &Client,
        approved: &Approved,
        key: &VaultKey,
        elsewhere: &Elsewhere,
    ) -> Result<Arc<SigningKey>, Refusal> {
        let (private, _) = self.read_key(client, approved, elsewhere).await?;
        let opened = open(private).await?;
        if *opened.public() != key.public {
            return Err(AgentRefusal::OtherKey(elsewhere.key.to_string()).into());
        }
        let is_it = |held: &VaultKey| {
            held.item == key.item && held.public == key.public && held.elsewhere.as_ref() == Some(elsewhere)
        };
        match (self.is_open(), self.vault_keys().iter().any(is_it)) {
            (true, true) => Ok(opened),
            (true, false) => Err(AgentRefusal::NoKey.into()),
            (false, _) => Err(Refusal::Locked),
        }
    }

    /// Has a request judged by the rules for where a private half is, too, where these forbid that it is read. What they
    /// let pass, or ask for, the rules for keys decide on by the item that stands for it here.
    pub(super) async fn add_forbidden(
        &self,
        requester: &Requester,
        elsewhere: Option<&Elsewhere>,
        act: &mut Act,
    ) -> Result<(), Refusal> {
        for subject in elsewhere.into_iter().flat_map(Elsewhere::reading) {
            let (title, names, beyond) = (String::new(), Vec::new(), Beyond::Nothing);
            let read = Act { subjects: vec![subject], title, names, beyond };
            if self.judge(requester, &read).await?.verdict == Verdict::Deny {
                act.subjects.extend(read.subjects);
            }
        }
        Ok(())
    }

    async fn read_key(
        &self,
        client: &Client,
        approved: &Approved,
        elsewhere: &Elsewhere,
    ) -> Result<(PrivateKey, Vec<u8>), Refusal> {
        let wanted: Vec<&Reference> = elsewhere.references().collect();
        let mut values = self.read_linked(client, approved, &wanted).await?;
        let text = values.remove(&elsewhere.key).ok_or(Refusal::Task)?;
        let passphrase = elsewhere.passphrase.as_ref().and_then(|passphrase| values.remove(passphrase));
        let refused = |cause: KeyFileError| {
            let at = elsewhere.key.to_string();
            Refusal::from(AgentRefusal::Elsewhere { at, cause })
        };
        match (key_file::read(text.expose(), None), passphrase) {
            (Err(KeyFileError::WantsPassphrase), Some(passphrase)) => self
                .derive(move || Ok(key_file::read(text.expose(), Some(&passphrase))))
                .await?
                .map_err(refused),
            (read, _) => read.map_err(refused),
        }
    }

    /// Makes an item of a key that stays where it is.
    pub(crate) async fn ssh_link(
        &self,
        client: &Client,
        item: ItemName,
        elsewhere: Elsewhere,
        public: Option<&str>,
    ) -> Result<Reply, Refusal> {
        self.open_vault_for(client, "link an ssh key").await?;
        for reference in elsewhere.references() {
            if reference.vault.is_local() {
                return Err(Refusal::Input("the local vault has keys of its own: keyloan ssh add"));
            }
        }
        let own = |reference: &Reference| Ok::<_, Refusal>(self.links()?.own(reference)?);
        let passphrase = elsewhere.passphrase.as_ref().map(own).transpose()?;
        let elsewhere = Elsewhere { key: own(&elsewhere.key)?, passphrase };
        check_title(&item)?;
        self.is_free(&item)?;
        let given = match public.map(read_public_line) {
            Some(Ok((public, comment))) if public.certificate().is_none() => {
                Some((public, comment.into_bytes()))
            }
            Some(_) => return Err(Refusal::Input("that is no line of a public key")),
            None => None,
        };
        if let Some((public, _)) = &given {
            self.is_new(public)?;
        }
        let mut subjects = written(&item);
        subjects.extend(elsewhere.reading());
        let act = Act {
            subjects,
            title: "link an ssh key that stays in another vault".to_owned(),
            names: std::iter::once(item.to_string())
                .chain(elsewhere.references().map(Reference::to_string))
                .collect(),
            beyond: Beyond::Nothing,
        };
        let approved = self
            .authorise(client, act, |question| {
                Self::about(question, "item", item.as_str());
                question.line("private", &elsewhere.shown(), Certainty::Asked);
                match &given {
                    Some((public, _)) => question.line("key", &named(public), Certainty::Claimed),
                    None => question.line(
                        "then",
                        "it is read once, to learn the public half",
                        Certainty::Verified,
                    ),
                }
            })
            .await?;
        let linked = async {
            let (public, comment) = if let Some(given) = given {
                given
            } else {
                let (private, comment) = self.read_key(client, &approved, &elsewhere).await?;
                let public = open(private).await?.public().clone();
                if public.certificate().is_some() {
                    return Err(Refusal::Input("a certificate stands there in place of a key"));
                }
                (public, comment)
            };
            self.is_free(&item)?;
            self.is_new(&public)?;
            Ok(Offered { item, elsewhere, public, comment })
        };
        let key = linked.await.map_err(|refusal| self.failed(&approved, refusal))?;
        self.keep_linked(&[key], &approved)
    }

    /// The same for the keys that a vault offers, by their public halves: those of these items, or all.
    pub(crate) async fn ssh_link_vault(
        &self,
        client: &Client,
        vault: &VaultName,
        items: &[ItemName],
    ) -> Result<Reply, Refusal> {
        self.open_vault_for(client, "link the ssh keys of another vault").await?;
        let links = self.links()?;
        let link = links.meant(vault)?;
        let (vault, asked) = (&link.name, self.asked(client, link)?);
        let offered = asked.within(asked.vault.ssh_keys(&asked.call)).await;
        let mut offered = offered.map_err(|fault| asked.refusal(fault))?;
        let there: HashSet<&ItemName> = offered.iter().map(|key| &key.item).collect();
        if let Some(gone) = items.iter().find(|item| !there.contains(item)) {
            return Err(asked.refusal(Fault::NoItem(gone.to_string())));
        }
        if !items.is_empty() {
            let wanted: HashSet<&ItemName> = items.iter().collect();
            offered.retain(|key| wanted.contains(&key.item));
        }
        // Whoever writes to that vault chooses how many, and every reply waits for what is done with them here.
        if offered.len() > MOST {
            return Err(Refusal::Input(
                "it offers more than 256 ssh keys; name the items whose keys are wanted",
            ));
        }
        if offered.is_empty() {
            return Err(Refusal::NotFound {
                what: "ssh key that keyloan can use in the vault",
                name: vault.to_string(),
            });
        }
        let mut named_so: HashMap<&ItemName, usize> = HashMap::new();
        for key in &offered {
            *named_so.entry(&key.item).or_default() += 1;
        }
        let held = self.vault_keys();
        let mut seen: HashSet<Vec<u8>> = held.iter().map(|held| held.public.blob().to_vec()).collect();
        let mut keys = Vec::with_capacity(offered.len());
        for key in &offered {
            let key = offered_key(vault, key, named_so.get(&key.item) == Some(&1))?;
            if seen.insert(key.public.blob().to_vec()) {
                check_title(&key.item)?;
                self.is_free(&key.item)?;
                keys.push(key);
            }
        }
        if keys.is_empty() {
            return Err(Refusal::Input("its ssh keys are all linked, or in the local vault, already"));
        }
        let act = Act {
            subjects: keys
                .iter()
                .flat_map(|key| written(&key.item).into_iter().chain(key.elsewhere.reading()))
                .collect(),
            title: "link ssh keys that stay in another vault".to_owned(),
            names: keys
                .iter()
                .map(|key| format!("{} {}", key.item, signing::fingerprint(&key.public)))
                .collect(),
            beyond: Beyond::Nothing,
        };
        let approved = self
            .authorise(client, act, |question| {
                for key in &keys {
                    describe(question, key);
                }
            })
            .await?;
        let free =
            keys.iter().try_for_each(|key| self.is_free(&key.item).and_then(|()| self.is_new(&key.public)));
        free.map_err(|refusal| self.failed(&approved, refusal))?;
        self.keep_linked(&keys, &approved)
    }

    fn keep_linked(&self, keys: &[Offered], approved: &Approved) -> Result<Reply, Refusal> {
        for key in keys {
            let is_fit = key.comment.len() <= COMMENT && !key.comment.iter().any(u8::is_ascii_control);
            let comment = if is_fit { key.comment.as_slice() } else { key.item.as_str().as_bytes() };
            let mut fields = vec![public_field(PUBLIC_KEY, &public_line(&key.public, comment))?];
            fields.extend(key.elsewhere.fields()?);
            self.write_key(&key.item, &fields, approved, "linked")?;
        }
        let held = self.vault_keys();
        let is_one = |held: &&VaultKey| keys.iter().any(|key| key.item == held.item);
        Ok(Reply::SshKeys { keys: held.iter().filter(is_one).map(VaultKey::summary).collect() })
    }

    fn is_free(&self, item: &ItemName) -> Result<(), Refusal> {
        match self.vault.borrow().index()?.find(index::Kind::Item, item.as_str()) {
            Some(_) => Err(Refusal::Exists(item.to_string())),
            None => Ok(()),
        }
    }

    fn is_new(&self, public: &PublicKey) -> Result<(), Refusal> {
        match self.vault_keys().iter().find(|held| held.public == *public) {
            Some(held) => Err(AgentRefusal::Held(held.item.to_string()).into()),
            None => Ok(()),
        }
    }

    /// A link was changed: what it said before signs no more.
    pub(in crate::broker) fn close_linked_keys(&self) {
        self.ssh.opened.borrow_mut().close_all();
    }
}

fn offered_key(vault: &VaultName, key: &SshKey, alone: bool) -> Result<Offered, Refusal> {
    let broken = || Refusal::Input("the vault offers an ssh key whose public half is none");
    let (public, comment) = read_public_line(&key.public).map_err(|_| broken())?;
    let at = |field| Reference { vault: vault.clone(), item: key.item.clone(), field };
    let elsewhere = Elsewhere { key: at(key.field.clone()), passphrase: key.passphrase.clone().map(at) };
    let name = format!("{}/{}", key.item, key.field);
    let item = if alone { key.item.clone() } else { ItemName::parse(&name).map_err(|_| broken())? };
    if public.certificate().is_some() {
        return Err(broken());
    }
    Ok(Offered { item, elsewhere, public, comment: comment.into_bytes() })
}

fn describe(question: &mut Question, key: &Offered) {
    Broker::about(question, "item", key.item.as_str());
    question.line("key", &named(&key.public), Certainty::Asked);
    question.line("private", &key.elsewhere.shown(), Certainty::Asked);
}

fn named(key: &PublicKey) -> String {
    format!("{} {}", key.key_type().name(), signing::fingerprint(key))
}
