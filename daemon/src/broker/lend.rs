//! Credentials for one command: the loan that `with-secrets` asks for.

use super::{Act, Beyond, Broker, Client, Refusal};
use crate::approval::question::{Certainty, Question};
use crate::approval::steering::Steering;
use crate::audit::event::Event;
use crate::env_set::manifest::{self, Manifest};
use crate::env_set::plan::{File, From, Plan, PlanError, Search, Sought, VARS};
use crate::patience;
use crate::policy::decide::{Subject, To};
use crate::policy::rule::Kind;
use crate::requester::Requester;
use crate::trust::Standing;
use crate::vault::linked::links::Links;
use keyloan_platform::search::FILE;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::request::Lend;
use keyloan_protocol::control::response::{self, FileForm, PlannedVariable, Reply};
use keyloan_protocol::limits;
use keyloan_protocol::names::VarName;
use keyloan_protocol::time_span::TimeSpan;
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
        let mut plan = self.plan(client, &ask, found).await?;
        if ask.dry_run {
            return self.describe_plan(&client.requester, plan).await;
        }
        let time = self.loan_time(ask.seconds)?;
        let act = Act {
            subjects: subjects(&plan, &to(&client.requester), time),
            title: title(&plan, "command"),
            names: names(&plan),
            beyond: Beyond::Nothing,
        };
        let requester = &client.requester;
        let judgement = self.judge(requester, &act).await?;
        let asks = judgement.verdict.asks();
        let steering = if asks { Steering::of(requester).await } else { Steering::default() };
        let describe = |question: &mut _| describe(question, &plan, requester, time, steering);
        let approved = self.authorise_judged(client, act, judgement, describe).await?;
        let read = self.read_planned(client, &approved, &mut plan).await;
        let (values, files, leases) = read.map_err(|refusal| self.failed(&approved, refusal))?;
        let loan = self.begin_loan(client, &plan, time);
        let lent = Event::Lent {
            request: approved.request,
            loan,
            names: names(&plan),
            pid: requester.peer.pid,
            given: approved.given.clone(),
        };
        if let Err(error) = self.record(&lent, approved.durable) {
            self.loans.borrow_mut().forget(loan);
            return Err(error.into());
        }
        self.leases.hold(loan, leases);
        let literals = plan.variables.iter().filter(|planned| matches!(planned.from, From::Literal(_)));
        let literals = literals.map(|planned| planned.name.clone()).collect();
        Ok(Message { body: Reply::Lent { loan, notes: plan.notes, files, literals }, values })
    }

    /// Puts the sets together from names alone.
    pub(super) async fn plan(&self, client: &Client, ask: &Lend, found: Found) -> Result<Plan, Refusal> {
        let requester = &client.requester;
        let by_directory = ask.sets.is_empty() || found.manifest.is_some();
        if by_directory && !requester.shares_our_mounts {
            return Err(Refusal::ForeignMounts);
        }
        let Found { mut directories, manifest } = found;
        let mut file = self.passed_manifest(requester, ask.manifest_at, &directories, manifest).await?;
        let mut elsewhere = Vec::new();
        let mut searched: Option<(Rc<Links>, Vec<Sought>, Vec<String>)> = None;
        loop {
            let links = self.links()?;
            let sought = {
                let vault = self.vault.borrow();
                let home = keyloan_platform::paths::home();
                let search =
                    Search { index: vault.index()?, links: &links, elsewhere, home, directories, file };
                let sought = search.sought_elsewhere(&ask.sets);
                let is_needed = !sought.is_empty() && links.searched().next().is_some();
                match searched {
                    // What was not searched for could be the very set that is meant now.
                    Some((before, of, _)) if of != sought || !Rc::ptr_eq(&before, &links) => {
                        return Err(Refusal::LinksChanged);
                    }
                    None if is_needed => {}
                    searched => {
                        let mut plan = search.plan(&ask.sets, &ask.only)?;
                        if plan.variables.is_empty() && plan.unread.is_empty() {
                            return Err(PlanError::Nothing.into());
                        }
                        plan.notes.extend(searched.into_iter().flat_map(|(_, _, notes)| notes));
                        return Ok(plan);
                    }
                }
                (directories, file) = (search.directories, search.file);
                sought
            };
            let found = self.titled(client, &links, &sought).await?;
            elsewhere = found.found;
            searched = Some((links, sought, found.unsearched));
        }
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
        let mut notes = plan.notes;
        notes.extend(
            plan.unread
                .iter()
                .map(|unread| format!("which variables {} has is known when it is read", unread.reference)),
        );
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
            notes,
        };
        Ok(Message::new(Reply::Plan(plan)))
    }

    /// How long the loan lasts at most: as asked, and no longer than policy lets it.
    pub(super) fn loan_time(&self, seconds: Option<u64>) -> Result<Option<Duration>, Refusal> {
        let asked = seconds.map(|seconds| Duration::from_secs(seconds.min(limits::SECONDS)));
        let most = self.with_policy(|policy| policy.loan_time)?;
        Ok(asked.into_iter().chain(most).min())
    }
}

impl Opened {
    /// Reads the file behind a descriptor, which may lie on a mount that does not answer.
    pub(super) async fn read(descriptor: OwnedFd) -> Result<Self, Refusal> {
        let read = patience::look_or_say(move || Self::read_now(descriptor)).await;
        read.unwrap_or_else(|late| Err(unreadable(late.cause())))
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

/// What a loan is about, by name: variables, and sets that are not read yet.
pub(super) fn names(plan: &Plan) -> Vec<String> {
    let unread = plan.unread.iter().map(|unread| unread.reference.to_string());
    plan.variables.iter().map(|planned| planned.name.to_string()).chain(unread).collect()
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
            From::Field(reference) | From::Line(reference) => {
                add(Some(&reference.subject()), reference.field.as_str());
            }
            From::Vars(item) => add(Some(item.as_str()), VARS),
            From::Files(_, parts) => {
                for (_, of) in parts {
                    add(Some(&of.subject()), of.field.as_str());
                }
            }
        }
    }
    for unread in &plan.unread {
        let item = unread.reference.subject();
        let only: Vec<&str> = plan.only.iter().map(VarName::as_str).collect();
        let what = format!("all of {} {}", unread.reference, only.join(" "));
        let given = Some(format!("{item}/{VARS}"));
        subjects.push((
            Kind::Env,
            Subject { what, to: to.clone(), time, item: Some(item), given, ..Subject::default() },
        ));
    }
    subjects
}

/// `lend 2 variables and 1 file to a command`
pub(super) fn title(plan: &Plan, to: &str) -> String {
    let files = plan.variables.iter().filter(|planned| planned.is_file()).count();
    let variables = plan.variables.len() - files;
    let parts = [(variables, "variable"), (files, "file"), (plan.unread.len(), "whole set")];
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
        let elsewhere = planned.references().iter().any(|reference| !reference.vault.is_local());
        let certainty = if elsewhere { Certainty::Asked } else { Certainty::Verified };
        question.list("lends", &parts, "; ", certainty);
    }
    for unread in &plan.unread {
        let which = if plan.only.is_empty() {
            "every variable".to_owned()
        } else {
            let only: Vec<&str> = plan.only.iter().map(VarName::as_str).collect();
            only.join(", ")
        };
        let text = format!("{which} of {}, as that vault has them", unread.reference);
        question.line("lends", &text, Certainty::Asked);
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
        From::Field(reference) | From::Line(reference) => vec![reference.to_string()],
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
