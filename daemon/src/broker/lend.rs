//! Credentials for one command: the loan that `with-secrets` asks for.

use super::{Act, Approved, Broker, Client, Refusal};
use crate::approval::question::{Certainty, Question};
use crate::audit::event::Event;
use crate::clock;
use crate::env_set::manifest::{self, Manifest};
use crate::env_set::plan::{File, From, Plan, PlanError, Search, VARS};
use crate::loan::table::Loan;
use crate::policy::decide::decide;
use crate::policy::rule::Kind;
use crate::readiness;
use crate::requester::Requester;
use crate::trust::Standing;
use crate::vault::local::index;
use crate::vault::local::item_file::Field;
use keyloan_protocol::control::request::Lend;
use keyloan_protocol::control::response::{self, PlannedVariable, Reply};
use keyloan_protocol::control::{Message, Value};
use keyloan_protocol::env_vars;
use keyloan_protocol::limits;
use keyloan_protocol::secret::SecretBytes;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What a request brought besides its header.
pub(crate) struct Found {
    /// Searched by the client, nearest first.
    pub(crate) directories: Vec<PathBuf>,
    pub(crate) manifest: Option<OwnedFd>,
}

/// A `.keyloan.toml` as opened by the client.
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) content: String,
}

impl Broker {
    pub(crate) async fn lend(
        self: &Rc<Self>,
        client: &Client,
        ask: Lend,
        found: Found,
    ) -> Result<Message<Reply>, Refusal> {
        self.open_vault_for(client, "lend credentials to a command").await?;
        let plan = self.plan(&client.requester, &ask, found)?;
        if ask.dry_run {
            return self.describe_plan(plan);
        }
        let act = Act {
            kind: Kind::Env,
            title: format!("lend {} to a command", counted(plan.variables.len(), "variable")),
            names: plan.variables.iter().map(|planned| planned.name.to_string()).collect(),
        };
        let requester = &client.requester;
        let approved = self.authorise(client, act, |question| describe(question, &plan, requester)).await?;
        let values =
            self.read_planned(&approved, &plan).map_err(|refusal| self.failed(&approved, refusal))?;
        let loan = self.begin_loan(client, &plan);
        let lent = Event::Lent {
            request: approved.request,
            loan,
            names: approved.names.clone(),
            pid: requester.peer.pid,
        };
        if let Err(error) = self.record(&lent, approved.durable) {
            self.loans.borrow_mut().end(loan);
            return Err(error.into());
        }
        let literals = plan.variables.iter().filter(|planned| matches!(planned.from, From::Literal(_)));
        let literals = literals.map(|planned| planned.name.clone()).collect();
        Ok(Message { body: Reply::Lent { loan, notes: plan.notes, literals }, values })
    }

    /// Puts the sets together from names alone.
    fn plan(&self, requester: &Requester, ask: &Lend, found: Found) -> Result<Plan, Refusal> {
        let by_directory = ask.sets.is_empty() || found.manifest.is_some();
        if by_directory && !requester.shares_our_mounts {
            return Err(Refusal::ForeignMounts);
        }
        check_directories(requester, &found.directories)?;
        let file = match (found.manifest, ask.manifest_at) {
            (Some(descriptor), Some(at)) => {
                let opened = Opened::read(descriptor)?;
                let expected = found.directories.get(at).map(|directory| directory.join(FILE));
                if expected.as_deref() != Some(opened.path.as_path()) {
                    return Err(Refusal::Input("the file that was passed is not where the search found it"));
                }
                Some(self.judged(opened, at))
            }
            (None, None) => None,
            _ => return Err(Refusal::Input("a file and its place in the search belong together")),
        };
        let vault = self.vault.borrow();
        let search = Search {
            index: vault.index()?,
            home: keyloan_platform::paths::home(),
            directories: found.directories,
            file,
        };
        let plan = search.plan(&ask.sets, &ask.only)?;
        if plan.variables.is_empty() {
            return Err(PlanError::Nothing.into());
        }
        Ok(plan)
    }

    /// What the trust list says of a file.
    fn judged(&self, opened: Opened, at: usize) -> File {
        let parsed = manifest::parse(&opened.content);
        let manifest: Result<Manifest, Vec<String>> =
            parsed.map_err(|faults| faults.iter().map(ToString::to_string).collect());
        let standing = match (self.unsealed.borrow().as_ref(), opened.path.to_str()) {
            (Some(unsealed), Some(path)) => unsealed.trust.standing(path, &opened.content),
            _ => Standing::Unknown,
        };
        let trust = match standing {
            Standing::Trusted => Ok(()),
            Standing::Changed => Err(PlanError::Changed(opened.path.clone())),
            Standing::Unknown => Err(PlanError::Untrusted(opened.path.clone())),
        };
        File { path: opened.path, at, manifest, trust }
    }

    fn describe_plan(&self, plan: Plan) -> Result<Message<Reply>, Refusal> {
        let judgement = self.with_policy(|policy| decide(policy, Kind::Env))?;
        let variables = plan
            .variables
            .into_iter()
            .map(|planned| PlannedVariable {
                from: from_text(&planned.from),
                name: planned.name,
                set: planned.set,
            })
            .collect();
        let plan = response::Plan {
            variables,
            decision: judgement.verdict.word().to_owned(),
            decided_by: judgement.rule,
            notes: plan.notes,
        };
        Ok(Message::new(Reply::Plan(plan)))
    }

    /// Reads what was approved, each item once.
    fn read_planned(&self, _approved: &Approved, plan: &Plan) -> Result<Vec<Value>, Refusal> {
        let vault = self.vault.borrow();
        let mut items: HashMap<&str, Vec<Field>> = HashMap::new();
        let mut values = Vec::with_capacity(plan.variables.len());
        for planned in &plan.variables {
            let (item, field) = match &planned.from {
                From::Literal(text) => {
                    values.push(Value::new(planned.name.as_str(), SecretBytes::copy_of(text.as_bytes())));
                    continue;
                }
                From::Field(reference) => (reference.item.as_str(), reference.field.as_str()),
                From::Vars(item) => (item.as_str(), VARS),
            };
            if !items.contains_key(item) {
                let fields = vault.read(index::Kind::Item, item)?;
                let gone = || Refusal::NotFound { what: "item", name: item.to_owned() };
                items.insert(item, fields.ok_or_else(gone)?);
            }
            let value = items[item].iter().find(|held| held.name.as_str() == field);
            let value = value.map(|field| field.value.expose());
            let value = match &planned.from {
                From::Vars(_) => value.and_then(|text| {
                    let variables = env_vars::parse_vars(text).ok()?;
                    variables.into_iter().find(|(name, _)| *name == planned.name).map(|(_, value)| value)
                }),
                _ => value,
            };
            let gone = || Refusal::NoField { item: item.to_owned(), field: field.to_owned() };
            values.push(environment_value(planned.name.as_str(), value.ok_or_else(gone)?)?);
        }
        Ok(values)
    }

    fn begin_loan(self: &Rc<Self>, client: &Client, plan: &Plan) -> u64 {
        let requester = &client.requester;
        let program = requester.claimed.program.as_deref().map(|program| program.display().to_string());
        let loan = Loan {
            pid: requester.peer.pid,
            program: program.unwrap_or_else(|| requester.program()),
            directory: requester.cwd.as_deref().map(|cwd| cwd.display().to_string()).unwrap_or_default(),
            variables: plan.variables.iter().map(|planned| planned.name.clone()).collect(),
            since: clock::now(),
        };
        let id = self.loans.borrow_mut().begin(loan);
        self.watch_holder(requester, id);
        id
    }

    /// Ends the loan when its holder ends; the pidfd is the connected process's and survives its exec.
    fn watch_holder(self: &Rc<Self>, requester: &Requester, loan: u64) {
        let holder = requester.peer.pidfd().and_then(|holder| holder.try_clone_to_owned().ok());
        let broker = Rc::clone(self);
        tokio::task::spawn_local(async move {
            if let Some(holder) = holder.and_then(|holder| readiness::watch(holder).ok()) {
                let _ = holder.readable().await;
                broker.end_loan(loan, "the process ended");
            }
        });
    }

    fn end_loan(&self, loan: u64, why: &'static str) {
        if self.loans.borrow_mut().end(loan).is_some() {
            // The loan is over whether or not this can be written; `status` says when the log is broken.
            let _ = self.record(&Event::LoanEnded { loan, why }, super::Durable::Soon);
        }
    }

    /// The reply never reached the client: nothing was lent.
    pub(crate) fn undelivered(&self, loan: u64) {
        let _ = self.record(&Event::Undelivered { loan }, super::Durable::Soon);
        self.end_loan(loan, "it could not be delivered");
    }
}

/// The name of the per-directory file.
pub(super) const FILE: &str = ".keyloan.toml";

impl Opened {
    /// Reads the file behind a descriptor and takes its path from the kernel. Where that path names another
    /// file to us (moved, or mounted over elsewhere) it is refused.
    pub(super) fn read(descriptor: OwnedFd) -> Result<Self, Refusal> {
        let unreadable = |cause| Refusal::Manifest { path: FILE.to_owned(), cause, faults: Vec::new() };
        let path = keyloan_platform::process::path_of(descriptor.as_fd())
            .map_err(|_| unreadable("its path is not known"))?;
        let file = std::fs::File::from(descriptor);
        let found = file.metadata().map_err(|_| unreadable("it cannot be looked at"))?;
        if !found.is_file() {
            return Err(unreadable("it is not a regular file"));
        }
        let here = std::fs::symlink_metadata(&path).map_err(|_| Refusal::ForeignMounts)?;
        if (here.dev(), here.ino()) != (found.dev(), found.ino()) {
            return Err(Refusal::ForeignMounts);
        }
        let mut bytes = vec![0; limits::MANIFEST + 1];
        let mut length = 0;
        while length < bytes.len() {
            match file.read_at(&mut bytes[length..], length as u64) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(_) => return Err(unreadable("it cannot be read")),
            }
        }
        if length > limits::MANIFEST {
            return Err(unreadable("it is longer than 64 KiB"));
        }
        bytes.truncate(length);
        let content = String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8 text"))?;
        Ok(Self { path, content })
    }
}

/// The nearest directory is the requester's own, as far as the kernel says, and the others lie above it.
fn check_directories(requester: &Requester, directories: &[PathBuf]) -> Result<(), Refusal> {
    let Some(nearest) = directories.first() else { return Ok(()) };
    if requester.cwd.as_ref().is_some_and(|cwd| cwd != nearest) {
        return Err(Refusal::Input("the directory that was named is not the one the request comes from"));
    }
    let above = |pair: &[PathBuf]| pair[0] != pair[1] && pair[0].starts_with(&pair[1]);
    if directories.iter().all(|directory| directory.is_absolute()) && directories.windows(2).all(above) {
        Ok(())
    } else {
        Err(Refusal::Input("the directories that were searched do not lie above one another"))
    }
}

fn environment_value(name: &str, value: &[u8]) -> Result<Value, Refusal> {
    if value.contains(&0) {
        return Err(Refusal::Plan(PlanError::Faults(vec![format!(
            "{name}: the value holds a NUL byte, which no environment can carry"
        )])));
    }
    if name.len() + value.len() + 2 > limits::ENVIRONMENT_STRING {
        return Err(Refusal::Plan(PlanError::Faults(vec![format!(
            "{name}: the value has {} bytes; the system passes at most {} in one variable",
            value.len(),
            limits::ENVIRONMENT_STRING - name.len() - 2
        )])));
    }
    Ok(Value::new(name, SecretBytes::copy_of(value)))
}

/// Variables that a question shows with their origin; further ones by name.
const VARIABLES: usize = 24;

fn describe(question: &mut Question, plan: &Plan, requester: &Requester) {
    // Who asks comes last and must not be pushed out of sight by a long list.
    let (shown, more) = plan.variables.split_at(plan.variables.len().min(VARIABLES));
    for planned in shown {
        let text = format!("{}  from {}, {}", planned.name, from_text(&planned.from), planned.set);
        Broker::about(question, "lends", &text);
    }
    if !more.is_empty() {
        let names: Vec<&str> = more.iter().map(|planned| planned.name.as_str()).collect();
        Broker::about(question, "and", &format!("{} more: {}", more.len(), names.join(" ")));
    }
    for note in &plan.notes {
        Broker::about(question, "note", note);
    }
    if let Some(program) = &requester.claimed.program {
        question.line("to", &program.display().to_string(), Certainty::Claimed);
    }
    if let Some(command) = requester.shown_command() {
        question.line("command", &command, Certainty::Claimed);
    }
    question.warn_of_steering(requester);
}

fn from_text(from: &From) -> String {
    match from {
        From::Literal(_) => "a literal".to_owned(),
        From::Field(reference) => reference.to_string(),
        From::Vars(item) => format!("local://{item}/{VARS}"),
    }
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Whether a path is that of a per-directory file.
pub(super) fn is_manifest(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == FILE)
}
