//! Credentials for a shell: the loan that `opvars` asks for, bound to the process that started the requester.
//!
//! A shell is told that its loan lasts by an empty file, its marker, which it tests for before each prompt; with the
//! marker goes the loan. So every marker must be gone when nobody watches any more: at the daemon's end, and at the
//! next one's start. Beside it lies, from when the shell has taken the loan, a file that says so; from the loan's end until
//! the shell has noticed, why; and from the moment when the shell has nothing of it any more, a file that says that. So a shell starts no program for any of it.

use super::lend::{self, Found};
use super::loans::Holder;
use super::{Act, Beyond, Broker, Client, Refusal};
use crate::approval::question::{Certainty, Question};
use crate::approval::steering::Steering;
use crate::audit::event::Event;
use crate::env_set::plan::{Plan, PlanError, VARS};
use crate::policy::decide::To;
use crate::requester::{Parent, Requester};
use crate::vault::local::index::Kind;
use keyloan_platform::lent_files::Place;
use keyloan_platform::private_file::{Directory, FileError};
use keyloan_protocol::control::Message;
use keyloan_protocol::control::request::Lend;
use keyloan_protocol::control::response::{ItemFields, Names, Reply, ShellLent};
use keyloan_protocol::names::{VarName, VaultName};
use keyloan_protocol::shell_vars;
use std::rc::Rc;
use std::time::Duration;

/// The markers' directory in the runtime directory.
const SHELLS: &str = "shells";

/// Ends the name of the file that says why a loan is over.
const WHY: &str = ".why";

/// Ends the name of the file by which a shell says that it has nothing of a loan any more.
const BACK: &str = ".back";

/// Ends the name of the file by which a shell says that it has taken a loan, for which it has so long: whatever ends the
/// client or the shell's function on the way, at Ctrl-C or by a signal, leaves no loan that nobody knows of.
const HAS: &str = ".has";
const TAKEN: Duration = Duration::from_secs(10);

/// What completion offers at most of one kind.
const NAMES: usize = 2000;

impl Broker {
    pub(crate) async fn lend_shell(
        self: &Rc<Self>,
        client: &Client,
        ask: Lend,
        found: Found,
    ) -> Result<Message<Reply>, Refusal> {
        self.open_vault_for(client, "lend credentials to a shell").await?;
        let requester = &client.requester;
        let shell = requester.started_by().ok_or(Refusal::Input("the shell that asks is gone"))?;
        let mut plan = without_the_shells_own(self.plan(client, &ask, found).await?)?;
        let time = ask.seconds.map(Duration::from_secs).or(plan.shell_time);
        let time = self.loan_time(time.map(|time| time.as_secs()))?;
        let until = plan.until_leaving.clone();
        let to = To::Shell { program: program(&shell), pid: shell.pid, started: shell.started, until };
        let act = Act {
            subjects: lend::subjects(&plan, &to, time),
            title: lend::title(&plan, "shell"),
            names: lend::names(&plan),
            beyond: Beyond::Nothing,
        };
        let judgement = self.judge(requester, &act).await?;
        let asks = judgement.verdict.asks();
        let steering = if asks { Steering::of(requester).await } else { Steering::default() };
        let describe = |question: &mut _| describe(question, &plan, requester, &shell, time, steering);
        let approved = self.authorise_judged(client, act, judgement, describe).await?;
        let read = self.read_planned(client, &approved, &mut plan).await;
        let (values, files, leases) = read.map_err(|refusal| self.failed(&approved, refusal))?;
        let marker = marker_name(&shell).ok_or(Refusal::Task)?;
        let path =
            self.make_marker(&marker).map_err(|error| self.failed(&approved, Refusal::Marker(error)))?;
        let (pid, started) = (shell.pid, shell.started);
        let holder = Holder {
            pid,
            started,
            program: program(&shell),
            pidfd: Some(shell.pidfd),
            marker: Some(marker.clone()),
        };
        let loan = self.begin_loan_to(holder, requester, &plan, time);
        let names = lend::names(&plan);
        let given = approved.given.clone();
        let lent = Event::Lent { request: approved.request, loan, names, pid, given };
        if let Err(error) = self.record(&lent, approved.durable) {
            self.loans.borrow_mut().forget(loan);
            self.forget_marker(&marker);
            return Err(error.into());
        }
        self.leases.hold(loan, leases);
        self.until_taken(loan, marker);
        let until_leaving = plan.until_leaving.map(|directory| directory.display().to_string());
        let daemon = nix::unistd::getpid().as_raw();
        let daemon_started = keyloan_platform::process::stat(daemon).map_or(0, |stat| stat.started);
        let lent = ShellLent {
            loan,
            pid,
            started,
            daemon,
            daemon_started,
            marker: path,
            until_leaving,
            notes: plan.notes,
            files,
        };
        Ok(Message { body: Reply::ShellLent(lent), values })
    }

    fn until_taken(self: &Rc<Self>, loan: u64, marker: String) {
        let broker = Rc::clone(self);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(TAKEN).await;
            if !broker.shells().is_ok_and(|shells| shells.holds(&format!("{marker}{HAS}"))) {
                broker.end_loan(loan, "the shell did not take it");
                broker.holder_ended(loan);
            }
        });
    }

    /// Ends the loans that shells say they have no longer, and forgets whom they were to. Any program of the user can say
    /// so in a shell's name; it could recall the loan as well.
    pub(super) fn take_back_from_shells(&self) {
        let to_shells: Vec<(u64, String)> = {
            let loans = self.loans.borrow();
            let with_marker = loans.all().filter_map(|(id, loan)| Some((id, loan.marker.clone()?)));
            with_marker.collect()
        };
        if to_shells.is_empty() {
            return;
        }
        let Ok(shells) = self.shells() else { return };
        for (id, marker) in to_shells {
            if shells.holds(&format!("{marker}{BACK}")) {
                self.end_loan(id, "the shell says that it gave it back");
                self.holder_ended(id);
            }
        }
    }

    /// What can be named on a command line. Asks nobody, and does not count as a use of the vault.
    pub(crate) async fn names(
        &self,
        client: &Client,
        manifest_at: Option<usize>,
        found: Found,
    ) -> Result<Reply, Refusal> {
        let mut names = Names::default();
        if !self.is_open() {
            return Ok(Reply::Names(names));
        }
        if let Ok(Some(file)) =
            self.passed_manifest(&client.requester, manifest_at, &found.directories, found.manifest).await
            && file.trust.is_ok()
            && let Ok(manifest) = &file.manifest
        {
            names.sets.extend(manifest.sets.keys().take(NAMES).map(ToString::to_string));
        }
        let vault = self.vault.borrow();
        // By their links alone: completion asks no vault.
        names.vaults.push(VaultName::LOCAL.to_owned());
        names.vaults.extend(self.links()?.iter().map(|link| link.name.to_string()));
        for entry in vault.index()?.entries(Kind::Item).into_iter().take(NAMES) {
            let fields: Vec<String> = entry.fields.iter().map(|field| field.name.to_string()).collect();
            if fields.iter().any(|field| field == VARS) {
                names.sets.push(entry.title.clone());
            }
            names.items.push(ItemFields { item: entry.title.clone(), fields });
        }
        names.loans.extend(self.loans.borrow().all().take(NAMES).map(|(id, loan)| {
            let variables: Vec<&str> = loan.variables.iter().map(VarName::as_str).collect();
            (id, format!("{} to {}", variables.join(" "), loan.program))
        }));
        Ok(Reply::Names(names))
    }

    fn shells(&self) -> Result<Directory, FileError> {
        Directory::open_or_create(&self.paths.runtime)?.child_or_create(SHELLS)
    }

    fn make_marker(&self, marker: &str) -> Result<String, FileError> {
        let shells = self.shells()?;
        shells.create_unsynced(marker, b"")?;
        Ok(shells.path().join(marker).display().to_string())
    }

    /// Says why, then takes the marker away. What cannot be removed is in the log: a shell would keep what it has.
    pub(super) fn end_marker(&self, marker: &str, why: &str) {
        let ended = self.shells().and_then(|shells| {
            // Without it a shell says that it was not told.
            let _ = shells.create_unsynced(&format!("{marker}{WHY}"), format!("{why}\n").as_bytes());
            shells.remove(marker)
        });
        if let Err(error) = ended {
            crate::journal::say(crate::journal::Level::Error, &format!("a shell is not told: {error}"));
        }
    }

    /// Nobody looks for it any more.
    pub(super) fn forget_marker(&self, marker: &str) {
        let Ok(shells) = self.shells() else { return };
        let _ = shells.remove(marker);
        for what in [WHY, BACK, HAS] {
            let _ = shells.remove(&format!("{marker}{what}"));
        }
    }

    /// Removes what a daemon left that was killed: no loan outlives its daemon, and its files do not either.
    pub(crate) fn remove_markers_left(&self) {
        let found = Directory::open(&self.paths.runtime).and_then(|runtime| runtime.child(SHELLS));
        let Ok(shells) = found else { return };
        let place = Place::existing(&self.paths).ok().flatten();
        for marker in shells.names().unwrap_or_default() {
            let mut parts = marker.split('-');
            let pid = parts.next().and_then(|part| part.parse().ok());
            let started = parts.next().and_then(|part| part.parse().ok());
            if let (Some(place), Some(pid), Some(started)) = (&place, pid, started) {
                // The shell may live on, so nobody else removes them.
                let _ = place.remove_of(pid, started);
            }
            let _ = shells.remove(&marker);
        }
    }
}

/// The process and a random part, or a shell would take a loan of the next daemon's for its own.
fn marker_name(shell: &Parent) -> Option<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).ok()?;
    Some(format!("{}-{}-{}", shell.pid, shell.started, data_encoding::HEXLOWER.encode(&bytes)))
}

/// What a shell would expand, or keep as something else than a string, is left out by name; of sets that are not read
/// yet, when they are.
fn without_the_shells_own(mut plan: Plan) -> Result<Plan, Refusal> {
    plan.for_shell = true;
    let Plan { variables, notes, .. } = &mut plan;
    variables.retain(|planned| {
        let own = shell_vars::is_the_shells(planned.name.as_str());
        if own {
            notes.push(not_for_shells(&planned.name));
        }
        !own
    });
    let is_empty = plan.variables.is_empty() && plan.unread.is_empty();
    if is_empty { Err(PlanError::Faults(plan.notes).into()) } else { Ok(plan) }
}

pub(super) fn not_for_shells(name: &VarName) -> String {
    format!("{name} is not lent to a shell, which takes it for its own (with-secrets lends it)")
}

fn describe(
    question: &mut Question,
    plan: &Plan,
    requester: &Requester,
    shell: &Parent,
    time: Option<Duration>,
    steering: Steering,
) {
    lend::describe_lent(question, plan, time);
    if let Some(directory) = &plan.until_leaving {
        let text = format!("the shell leaves {}", directory.display());
        question.line("until", &text, Certainty::Claimed);
    }
    question.line("to", &format!("{} (pid {})", program(shell), shell.pid), Certainty::Seen);
    Broker::about(question, "note", "until then every program that this shell starts gets them, unasked");
    question.warn_of_steering(requester, steering, "what this shell starts");
}

fn program(shell: &Parent) -> String {
    shell
        .program
        .as_ref()
        .map_or_else(|| "an unreadable program".to_owned(), |path| path.display().to_string())
}
