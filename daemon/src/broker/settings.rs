//! What is later believed: trusted files and the policy.

use super::lend::{Opened, is_manifest};
use super::{Act, Beyond, Broker, Client, Refusal, linked};
use crate::approval::question::{LINES, Question};
use crate::approval::{child, program};
use crate::audit::event::Event;
use crate::audit::sink::Durable;
use crate::clock;
use crate::env_set::manifest;
use crate::patience;
use crate::policy::decide::Subject;
use crate::policy::parse::{self, PolicyError, Setting};
use crate::policy::rule::{ApproverProgram, Attribute, Kind, Policy, Rule, Verdict};
use crate::policy::{compare, print};
use crate::trust::{Standing, sha256};
use crate::vault::local;
use keyloan_protocol::control::response::Reply;
use keyloan_protocol::names::{VaultName, escaped};
use keyloan_protocol::reference::ONE_PASSWORD;
use keyloan_protocol::secret::SecretBytes;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

type Done = Result<Reply, Refusal>;

/// Settings changed at once: each has its line in one question.
const SETTINGS: usize = 32;

/// Changes without the passphrase within such a time: as many as one types.
const UNASKED: (u32, Duration) = (8, Duration::from_secs(8));
const HASTY: &str = "the policy was changed 8 times within 8 seconds; wait, change it all at once, or hand over the passphrase";

impl Broker {
    pub(crate) async fn trust(&self, client: &Client, descriptor: OwnedFd) -> Done {
        self.open_vault_for(client, "trust a file").await?;
        if !client.requester.shares_our_mounts {
            return Err(Refusal::ForeignMounts);
        }
        let Opened { path, content } = Opened::read(descriptor).await?;
        let unusable = |path: &Path, cause| Refusal::Manifest {
            path: path.display().to_string(),
            cause,
            faults: Vec::new(),
        };
        if !is_manifest(&path) {
            return Err(unusable(&path, "only a file named .keyloan.toml is ever used"));
        }
        let Some(path) = path.to_str().map(str::to_owned) else {
            return Err(unusable(&path, "its path is not UTF-8 text"));
        };
        manifest::parse(&content).map_err(|faults| Refusal::Manifest {
            path: path.clone(),
            cause: "it is not a per-directory file",
            faults: faults.iter().map(ToString::to_string).collect(),
        })?;
        let (standing, difference) = {
            let unsealed = self.unsealed.borrow();
            let trust = &unsealed.as_ref().ok_or(Refusal::Locked)?.trust;
            (trust.standing(&path, &content), trust.difference(&path, &content))
        };
        if difference.len() > LINES - 10 {
            return Err(unusable(Path::new(&path), "it has more new lines than one question can show (50)"));
        }
        let title = match standing {
            Standing::Trusted => {
                return Ok(Reply::done(format!("{} is trusted already, as it is now", shown(&path))));
            }
            Standing::Changed => "trust the changes to a file",
            Standing::Unknown => "trust a file",
        };
        let act = Act {
            subjects: vec![(Kind::Trust, Subject::of(&path))],
            title: title.to_owned(),
            names: vec![path.clone()],
            beyond: Beyond::Nothing,
        };
        let approved = self
            .authorise(client, act, |question| {
                Self::about(question, "file", &path);
                for line in difference.iter().filter(|line| line.len() > 2) {
                    Self::about(question, "content", line);
                }
            })
            .await?;
        let kept = self.change_trust(|trust| trust.add(&path, &content));
        kept.map_err(|refusal| self.failed(&approved, refusal))?;
        let changed = Event::TrustChanged {
            request: approved.request,
            path: path.clone(),
            sha256: Some(sha256(&content)),
            action: "trusted",
        };
        self.record(&changed, approved.durable)?;
        Ok(Reply::done(format!(
            "{} is trusted as it is now; any change to it needs trust again",
            shown(&path)
        )))
    }

    /// Less is trusted afterwards, so nobody is asked.
    pub(crate) async fn untrust(&self, client: &Client, path: &str) -> Done {
        self.open_vault_for(client, "forget a file").await?;
        let request = self.next_request();
        let mut known = false;
        self.change_trust(|trust| known = trust.remove(path))?;
        if !known {
            return Err(Refusal::NotFound { what: "trusted file", name: path.to_owned() });
        }
        let changed =
            Event::TrustChanged { request, path: path.to_owned(), sha256: None, action: "forgotten" };
        self.record(&changed, Durable::Soon)?;
        Ok(Reply::done(format!("{} is no longer trusted", shown(path))))
    }

    /// Changes the list on disk and then in memory.
    fn change_trust(&self, change: impl FnOnce(&mut crate::trust::TrustList)) -> Result<(), Refusal> {
        let mut unsealed = self.unsealed.borrow_mut();
        let unsealed = unsealed.as_mut().ok_or(Refusal::Locked)?;
        let before = unsealed.trust.bytes();
        change(&mut unsealed.trust);
        let bytes = unsealed.trust.bytes();
        if bytes == before {
            return Ok(());
        }
        let sealed = self.vault.borrow_mut().seal(local::TRUST, SecretBytes::new(bytes), &clock::now());
        if sealed.is_err()
            && let Some(old) = crate::trust::TrustList::read(&before)
        {
            unsealed.trust = old;
        }
        Ok(sealed?)
    }

    pub(crate) async fn policy_show(&self, client: &Client) -> Done {
        self.open_vault_for(client, "show its policy").await?;
        Ok(Reply::Policy { settings: self.with_policy(print::print)? })
    }

    /// An item under a name that no request can have is one that is never denied.
    fn check_items(&self, before: &Policy, after: &Policy) -> Result<(), Refusal> {
        let new = after.rules.iter().filter(|rule| before.rule(rule.kind, &rule.when).is_none());
        for rule in new {
            let item = rule.when.of(Attribute::Item).and_then(|item| item.text.split_once("://"));
            match item.and_then(|(vault, _)| VaultName::parse(vault).ok()) {
                Some(vault) if vault.is_local() => {
                    return Err(Refusal::Policy { setting: rule.to_string(), cause: PolicyError::Local });
                }
                Some(vault) if vault.as_str() == ONE_PASSWORD => {
                    linked::named(&*self.links()?, &vault).map(drop)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Changes the policy as a whole or not at all.
    pub(crate) async fn policy_set(
        &self,
        client: &Client,
        passphrase: Option<SecretBytes>,
        settings: Vec<String>,
    ) -> Done {
        if settings.len() > SETTINGS {
            return Err(Refusal::Input("at most 32 settings are changed at once"));
        }
        self.open_vault_for(client, "change its policy").await?;
        let before = self.with_policy(Clone::clone)?;
        let (mut policy, programs) = changed(&before, &settings)?;
        self.check_items(&before, &policy)?;
        if let Some((a, b)) = compare::contradiction(&policy) {
            return Err(Refusal::Contradiction(a.to_string(), b.to_string()));
        }
        if settings.iter().any(|setting| setting.starts_with("approver.")) {
            let act = Act {
                subjects: vec![(Kind::Approver, Subject::of("approver.*"))],
                title: "set who answers".to_owned(),
                names: settings.clone(),
                beyond: Beyond::Nothing,
            };
            self.refuse_forbidden(&client.requester, &act).await?;
        }
        let mut question = Question::new("change the policy");
        for setting in &settings {
            Self::about(&mut question, "sets", setting);
        }
        // What only tightens is nobody's loss; were it asked for, people would leave things as they are.
        let asks = programs.are_any() || compare::loosens(&before, &policy);
        let is_hasty = !asks && policy != before && !self.unasked.borrow_mut().has_room(clock::since_boot());
        if is_hasty && passphrase.is_none() {
            return Err(Refusal::Input(HASTY));
        }
        if asks || is_hasty {
            self.prove_passphrase(client, passphrase, &question).await?;
        }
        // Looked at only now: files that the requester names are long, or on a mount that does not answer.
        programs.pin(&mut policy).await?;
        if let Some(path) = policy.pinentry.clone().filter(|_| policy.pinentry != before.pinentry) {
            let shown = path.display().to_string();
            if patience::look(move || child::is_roots(&path)).await != Some(true) {
                return Err(Refusal::Pinentry(shown));
            }
        }
        // Else what tightened it meanwhile, while the passphrase was typed or an approver program was read, would be
        // undone by a change that said nothing of it.
        if self.with_policy(|now| *now != before)? {
            return Err(Refusal::Input("the policy was changed meanwhile; look at it, and set it again"));
        }
        if policy == before {
            return Ok(Reply::done("nothing changes"));
        }
        let text = print::print(&policy);
        let by = self.who(&client.requester);
        self.vault.borrow_mut().check_writable()?;
        if !asks {
            self.unasked.borrow_mut().made += 1;
        }
        self.record(&Event::PolicyChanged { settings: settings.clone(), by }, Durable::Now)?;
        let bytes = SecretBytes::new(text.join("\n").into_bytes());
        self.vault.borrow_mut().seal(local::POLICY, bytes, &clock::now())?;
        if let Some(unsealed) = self.unsealed.borrow_mut().as_mut() {
            unsealed.policy = policy;
        }
        // A yes was given under the rules that were.
        self.end_all_grants("the policy was changed");
        let forbids = |rule: &Rule| {
            rule.kind == Kind::Approver && rule.verdict == Verdict::Deny && rule.when.0.is_empty()
        };
        if self.with_policy(|policy| policy.rules.iter().any(forbids))? {
            self.queue.board.end("the policy forbids it");
        }
        Ok(Reply::done(format!("set: {}", shown(&settings.join(" ")))))
    }
}

/// Changes of the policy that nobody was asked for. Each is a record that waits for the disk and ends the grants, so a
/// loop of them would fill the log and leave the daemon no time.
#[derive(Default)]
pub(super) struct Unasked {
    /// Since boot.
    from: Duration,
    made: u32,
}

impl Unasked {
    fn has_room(&mut self, now: Duration) -> bool {
        if now.saturating_sub(self.from) >= UNASKED.1 {
            *self = Self { from: now, made: 0 };
        }
        self.made < UNASKED.0
    }
}

/// Programs that are to be set, and pinned before that.
#[derive(Default)]
struct Programs {
    approver: Option<PathBuf>,
    askpass: Option<PathBuf>,
}

impl Programs {
    fn are_any(&self) -> bool {
        self.approver.is_some() || self.askpass.is_some()
    }

    async fn pin(self, policy: &mut Policy) -> Result<(), Refusal> {
        if let Some(path) = self.approver {
            policy.approver = Some(pinned(path).await?);
        }
        if let Some(path) = self.askpass {
            policy.askpass = Some(pinned(path).await?);
        }
        Ok(())
    }
}

/// The policy after a change, but for the programs that it sets.
fn changed(before: &Policy, settings: &[String]) -> Result<(Policy, Programs), Refusal> {
    let (mut policy, mut programs) = (before.clone(), Programs::default());
    for text in settings {
        let setting = parse::setting(text).map_err(|cause| {
            // A key without a value may be a value typed in the wrong place.
            let is_rule = text.split('=').next().is_some_and(|key| key.contains('['));
            let (key, end) = if is_rule { (text.rsplit_once("]="), "]") } else { (text.split_once('='), "") };
            let setting = key.map_or("?".to_owned(), |(key, _)| format!("{key}{end}"));
            Refusal::Policy { setting, cause }
        })?;
        match &setting {
            Setting::Approver(path) => programs.approver.clone_from(path),
            Setting::Askpass(path) => programs.askpass.clone_from(path),
            _ => {}
        }
        if !matches!(setting, Setting::Approver(Some(_)) | Setting::Askpass(Some(_))) {
            policy.set(setting).map_err(|cause| Refusal::Policy { setting: text.clone(), cause })?;
        }
    }
    Ok((policy, programs))
}

/// A program as it is now: no other content runs later.
async fn pinned(path: PathBuf) -> Result<ApproverProgram, Refusal> {
    let shown = path.display().to_string();
    program::pin(path).await.map_err(|cause| Refusal::Approver { path: shown, cause })
}

/// For a terminal: paths may hold whatever their makers put into them.
fn shown(text: &str) -> String {
    escaped(text, 2000)
}
