//! Credentials for one command: the loan that `with-secrets` asks for.

use super::{Act, Approved, Beyond, Broker, Client, Refusal};
use crate::approval::question::{Certainty, Question};
use crate::approval::steering::Steering;
use crate::audit::event::Event;
use crate::env_set::manifest::{self, Manifest};
use crate::env_set::plan::{self, File, From, Plan, PlanError, Planned, Search, VARS};
use crate::patience;
use crate::policy::decide::{Subject, To};
use crate::policy::rule::Kind;
use crate::requester::Requester;
use crate::trust::Standing;
use crate::vault::local::item_file::Field;
use crate::vault::local::{LocalVault, index};
use keyloan_platform::search::FILE;
use keyloan_protocol::control::request::Lend;
use keyloan_protocol::control::response::{self, FileForm, FilePart, LentFile, PlannedVariable, Reply};
use keyloan_protocol::control::{Message, Value};
use keyloan_protocol::env_vars;
use keyloan_protocol::limits;
use keyloan_protocol::names::VarName;
use keyloan_protocol::secret::SecretBytes;
use keyloan_protocol::time_span::TimeSpan;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

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
        let plan = self.plan(&client.requester, &ask, found).await?;
        if ask.dry_run {
            return self.describe_plan(&client.requester, plan).await;
        }
        let time = self.loan_time(ask.seconds)?;
        let act = Act {
            subjects: subjects(&plan, &to(&client.requester), time),
            title: title(&plan, "command"),
            names: plan.variables.iter().map(|planned| planned.name.to_string()).collect(),
            beyond: Beyond::Nothing,
        };
        let requester = &client.requester;
        let judgement = self.judge(requester, &act).await?;
        let asks = judgement.verdict.asks();
        let steering = if asks { Steering::of(requester).await } else { Steering::default() };
        let describe = |question: &mut _| describe(question, &plan, requester, time, steering);
        let approved = self.authorise_judged(client, act, judgement, describe).await?;
        let (values, files) =
            self.read_planned(&approved, &plan).map_err(|refusal| self.failed(&approved, refusal))?;
        let loan = self.begin_loan(client, &plan, time);
        let lent = Event::Lent {
            request: approved.request,
            loan,
            names: approved.names.clone(),
            pid: requester.peer.pid,
            given: approved.given.clone(),
        };
        if let Err(error) = self.record(&lent, approved.durable) {
            self.loans.borrow_mut().forget(loan);
            return Err(error.into());
        }
        let literals = plan.variables.iter().filter(|planned| matches!(planned.from, From::Literal(_)));
        let literals = literals.map(|planned| planned.name.clone()).collect();
        Ok(Message { body: Reply::Lent { loan, notes: plan.notes, files, literals }, values })
    }

    /// Puts the sets together from names alone.
    pub(super) async fn plan(
        &self,
        requester: &Requester,
        ask: &Lend,
        found: Found,
    ) -> Result<Plan, Refusal> {
        let by_directory = ask.sets.is_empty() || found.manifest.is_some();
        if by_directory && !requester.shares_our_mounts {
            return Err(Refusal::ForeignMounts);
        }
        let Found { directories, manifest } = found;
        let file = self.passed_manifest(requester, ask.manifest_at, &directories, manifest).await?;
        let vault = self.vault.borrow();
        let search =
            Search { index: vault.index()?, home: keyloan_platform::paths::home(), directories, file };
        let plan = search.plan(&ask.sets, &ask.only)?;
        if plan.variables.is_empty() {
            return Err(PlanError::Nothing.into());
        }
        Ok(plan)
    }

    /// The file that the client passed, if it is where it says that it found it.
    pub(super) async fn passed_manifest(
        &self,
        requester: &Requester,
        at: Option<usize>,
        directories: &[PathBuf],
        manifest: Option<OwnedFd>,
    ) -> Result<Option<File>, Refusal> {
        check_directories(requester, directories)?;
        match (manifest, at) {
            (Some(descriptor), Some(at)) => {
                let opened = Opened::read(descriptor).await?;
                let expected = directories.get(at).map(|directory| directory.join(FILE));
                if expected.as_deref() != Some(opened.path.as_path()) {
                    return Err(Refusal::Input("the file that was passed is not where the search found it"));
                }
                Ok(Some(self.judged(opened, at)))
            }
            (None, None) => Ok(None),
            _ => Err(Refusal::Input("a file and its place in the search belong together")),
        }
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

    async fn describe_plan(&self, requester: &Requester, plan: Plan) -> Result<Message<Reply>, Refusal> {
        let act = Act {
            subjects: subjects(&plan, &to(requester), None),
            title: title(&plan, "command"),
            names: Vec::new(),
            beyond: Beyond::Nothing,
        };
        let judgement = self.judge(requester, &act).await?;
        let variables = plan
            .variables
            .into_iter()
            .map(|planned| PlannedVariable {
                from: from_parts(&planned.from).join("; "),
                name: planned.name,
                set: planned.set,
            })
            .collect();
        let plan = response::Plan {
            variables,
            decision: judgement.verdict.to_string(),
            decided_by: judgement.rule,
            notes: plan.notes,
        };
        Ok(Message::new(Reply::Plan(plan)))
    }

    /// How long the loan lasts at most: as asked, and no longer than policy lets it.
    pub(super) fn loan_time(&self, seconds: Option<u64>) -> Result<Option<Duration>, Refusal> {
        let asked = seconds.map(|seconds| Duration::from_secs(seconds.min(limits::SECONDS)));
        let most = self.with_policy(|policy| policy.loan_time)?;
        Ok(asked.into_iter().chain(most).min())
    }

    /// Reads what was approved, each item once.
    pub(super) fn read_planned(
        &self,
        _approved: &Approved,
        plan: &Plan,
    ) -> Result<(Vec<Value>, Vec<LentFile>), Refusal> {
        let mut items = Items { vault: &self.vault.borrow(), read: HashMap::new() };
        let mut values = Vec::with_capacity(plan.variables.len());
        let mut files = Vec::new();
        for planned in &plan.variables {
            let name = &planned.name;
            match &planned.from {
                From::Literal(text) => {
                    values.push(Value::new(name.as_str(), SecretBytes::copy_of(text.as_bytes())));
                }
                From::Field(reference) => {
                    let value = items.field(reference.item.as_str(), reference.field.as_str())?;
                    values.push(environment_value(name, value)?);
                }
                // With all others of its item, below.
                From::Vars(_) => {}
                From::Files(form, parts) => {
                    let mut lent = LentFile { variable: name.clone(), form: *form, parts: Vec::new() };
                    for (file, reference) in parts {
                        let content = items.field(reference.item.as_str(), reference.field.as_str())?;
                        // No variable's name holds a slash.
                        let value = format!("{name}/{file}");
                        values.push(Value::new(&value, SecretBytes::copy_of(content)));
                        lent.parts.push(FilePart { name: file.clone(), value });
                    }
                    files.push(lent);
                }
            }
        }
        for item in plan.items_with_variables() {
            let text = items.field(item.as_str(), VARS)?;
            let gone = || Refusal::NoField { item: item.to_string(), field: VARS.to_owned() };
            let held: HashMap<_, _> = env_vars::parse_vars(text).map_err(|_| gone())?.into_iter().collect();
            let of_item = |planned: &&Planned| matches!(&planned.from, From::Vars(from) if from == item);
            for Planned { name, .. } in plan.variables.iter().filter(of_item) {
                values.push(environment_value(name, held.get(name).ok_or_else(gone)?)?);
            }
        }
        Ok((values, files))
    }
}

/// Items as they are read for one loan.
struct Items<'a> {
    vault: &'a LocalVault,
    read: HashMap<String, Vec<Field>>,
}

impl Items<'_> {
    fn field(&mut self, item: &str, field: &str) -> Result<&[u8], Refusal> {
        if !self.read.contains_key(item) {
            let fields = self.vault.read(index::Kind::Item, item)?;
            let gone = || Refusal::NotFound { what: "item", name: item.to_owned() };
            self.read.insert(item.to_owned(), fields.ok_or_else(gone)?);
        }
        let held = self.read[item].iter().find(|held| held.name.as_str() == field);
        let gone = || Refusal::NoField { item: item.to_owned(), field: field.to_owned() };
        held.map(|held| held.value.expose()).ok_or_else(gone)
    }
}

impl Opened {
    /// Reads the file behind a descriptor, which may lie on a mount that does not answer.
    pub(super) async fn read(descriptor: OwnedFd) -> Result<Self, Refusal> {
        let read = patience::look(move || Self::read_now(descriptor)).await;
        read.unwrap_or_else(|| Err(unreadable("its file system does not answer")))
    }

    /// Takes the path from the kernel. Where that names another file to us (moved, or mounted over elsewhere)
    /// it is refused.
    fn read_now(descriptor: OwnedFd) -> Result<Self, Refusal> {
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

fn unreadable(cause: &'static str) -> Refusal {
    Refusal::Manifest { path: FILE.to_owned(), cause, faults: Vec::new() }
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

fn environment_value(name: &VarName, value: &[u8]) -> Result<Value, Refusal> {
    let fault = value
        .contains(&0)
        .then(|| {
            format!("{name}: the value holds a NUL byte, which no environment can carry (lend it as a file)")
        })
        .or_else(|| plan::too_long(name, value.len()));
    match fault {
        Some(fault) => Err(PlanError::Faults(vec![fault]).into()),
        None => Ok(Value::new(name.as_str(), SecretBytes::copy_of(value))),
    }
}

/// The program that the requester says it becomes.
fn to(requester: &Requester) -> To {
    requester.claimed.program.clone().map_or(To::Requester, To::Program)
}

/// What is lent, each with the item it comes from, to whom, and for what time.
pub(super) fn subjects(plan: &Plan, to: &To, time: Option<Duration>) -> Vec<(Kind, Subject)> {
    let mut subjects = Vec::new();
    for planned in &plan.variables {
        let kind = if planned.is_file() { Kind::File } else { Kind::Env };
        let mut add = |item: Option<&str>, field: &str| {
            let what = format!("{} from {}", planned.name, from_parts(&planned.from).join("; "));
            let (given, item) = (item.map(|item| format!("{item}/{field}")), item.map(str::to_owned));
            subjects.push((kind, Subject { what, to: to.clone(), time, item, given, ..Subject::default() }));
        };
        match &planned.from {
            From::Literal(_) => add(None, ""),
            From::Field(reference) => add(Some(reference.item.as_str()), reference.field.as_str()),
            From::Vars(item) => add(Some(item.as_str()), VARS),
            From::Files(_, parts) => {
                for (_, of) in parts {
                    add(Some(of.item.as_str()), of.field.as_str());
                }
            }
        }
    }
    subjects
}

/// `lend 2 variables and 1 file to a command`
pub(super) fn title(plan: &Plan, to: &str) -> String {
    let files = plan.variables.iter().filter(|planned| planned.is_file()).count();
    let variables = plan.variables.len() - files;
    let parts = [(variables, "variable"), (files, "file")];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0).map(|(count, noun)| counted(count, noun));
    format!("lend {} to a {to}", parts.collect::<Vec<_>>().join(" and "))
}

fn describe(
    question: &mut Question,
    plan: &Plan,
    requester: &Requester,
    time: Option<Duration>,
    steering: Steering,
) {
    describe_lent(question, plan, time);
    if let Some(program) = &requester.claimed.program {
        question.line("to", &program.display().to_string(), Certainty::Claimed);
    }
    if let Some(command) = requester.shown_command() {
        question.line("command", &command, Certainty::Claimed);
    }
    question.warn_of_steering(requester, steering, "the command");
}

/// What is lent, from where, and for how long.
pub(super) fn describe_lent(question: &mut Question, plan: &Plan, time: Option<Duration>) {
    for planned in &plan.variables {
        let mut parts = from_parts(&planned.from);
        if let Some(first) = parts.first_mut() {
            first.insert_str(0, &format!("{}  from ", planned.name));
        }
        if let Some(last) = parts.last_mut() {
            last.extend([", ", &planned.set]);
        }
        question.list("lends", &parts, "; ", Certainty::Verified);
    }
    for note in &plan.notes {
        Broker::about(question, "note", note);
    }
    if let Some(time) = time {
        Broker::about(question, "for", &format!("at most {}", TimeSpan::of(time)));
    }
}

/// Where a variable comes from; more than one place where it is a directory of files.
fn from_parts(from: &From) -> Vec<String> {
    match from {
        From::Literal(_) => vec!["a literal".to_owned()],
        From::Field(reference) => vec![reference.to_string()],
        From::Vars(item) => vec![format!("local://{item}/{VARS}")],
        From::Files(form, parts) => parts
            .iter()
            .map(|(name, reference)| match form {
                FileForm::Descriptor => format!("{reference}, as a file in memory"),
                FileForm::Path => format!("{reference}, as the file {name}"),
                FileForm::Directory => format!("{reference}, as {name} in a directory"),
            })
            .collect(),
    }
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Whether a path is that of a per-directory file.
pub(super) fn is_manifest(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == FILE)
}
