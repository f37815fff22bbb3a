//! What becomes of a loan: it ends with its holder, at its time, by `recall` or by `lock`, and what still holds
//! it afterwards is found and said.

use super::{Broker, Client, Refusal};
use crate::audit::event::Event;
use crate::audit::sink::Durable;
use crate::clock;
use crate::env_set::plan::{Plan, Planned};
use crate::loan::table::Loan;
use crate::patience;
use crate::readiness;
use crate::requester::Requester;
use keyloan_platform::lent_files::{self, LoanName, Place};
use keyloan_platform::process;
use keyloan_protocol::control::response::{Holding, LoanSummary, Reply};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgrp};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Between the request to end and the end without asking.
const GRACE: Duration = Duration::from_secs(2);

/// Loans that are over and looked at; further ones wait for the next look.
const LOOK: usize = 1024;

/// The process that a loan is bound to.
pub(super) struct Holder {
    pub(super) pid: i32,
    pub(super) started: u64,
    pub(super) program: String,
    /// Without one its end is not noticed.
    pub(super) pidfd: Option<OwnedFd>,
    pub(super) marker: Option<String>,
}

impl Broker {
    /// Notes a loan to the command that the client becomes, before its values go out.
    pub(super) fn begin_loan(self: &Rc<Self>, client: &Client, plan: &Plan, time: Option<Duration>) -> u64 {
        let requester = &client.requester;
        let program = requester.claimed.program.as_deref().map(|program| program.display().to_string());
        let pid = requester.peer.pid;
        let holder = Holder {
            pid,
            started: process::stat(pid).map_or(0, |stat| stat.started),
            program: program.unwrap_or_else(|| requester.program()),
            pidfd: requester.peer.pidfd().and_then(|holder| holder.try_clone_to_owned().ok()),
            marker: None,
        };
        self.begin_loan_to(holder, requester, plan, time)
    }

    pub(super) fn begin_loan_to(
        self: &Rc<Self>,
        holder: Holder,
        requester: &Requester,
        plan: &Plan,
        time: Option<Duration>,
    ) -> u64 {
        let loan = Loan {
            pid: holder.pid,
            started: holder.started,
            program: holder.program,
            directory: requester.cwd.as_deref().map(|cwd| cwd.display().to_string()).unwrap_or_default(),
            variables: plan.variables.iter().map(|planned| planned.name.clone()).collect(),
            references: plan.references(),
            since: clock::now(),
            expires: time.map(|time| clock::since_boot() + time),
            has_files: plan.variables.iter().any(Planned::is_file),
            marker: holder.marker,
            over: None,
        };
        let id = self.loans.borrow_mut().begin(loan);
        self.watch_holder(holder.pidfd, id, time);
        id
    }

    /// Ends the loan when its holder ends; the pidfd is one process's and survives its exec. Its time
    /// is also looked at by every tick, since a timer stands still while the machine is suspended.
    fn watch_holder(self: &Rc<Self>, holder: Option<OwnedFd>, loan: u64, time: Option<Duration>) {
        let broker = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let Some(holder) = holder.and_then(|holder| readiness::watch(holder).ok()) else { return };
            if let Some(time) = time
                && timeout(time, holder.readable()).await.is_err()
            {
                broker.end_expired();
            }
            let _ = holder.readable().await;
            broker.end_loan(loan, "the process ended");
            broker.holder_ended(loan);
        });
    }

    /// Ends a loan, once. The record is written whether or not the files could be removed, and the loan is over
    /// whether or not the record can be written; `status` says when the log is broken.
    pub(super) fn end_loan(&self, id: u64, why: &'static str) {
        let (files, marker) = match self.loans.borrow_mut().end(id, why) {
            Some(loan) => (loan.has_files.then(|| name(id, loan)), loan.marker.clone()),
            None => return,
        };
        if let Some(marker) = marker {
            self.end_marker(&marker, why);
        }
        let _ = self.record(&Event::LoanEnded { loan: id, why }, Durable::Soon);
        self.leases.end(id);
        if let Some(name) = files
            && Place::existing(&self.paths)
                .is_ok_and(|place| place.is_some_and(|place| place.remove(&name).is_err()))
        {
            let _ = self.record(&Event::FilesLeft { loan: id }, Durable::Soon);
        }
    }

    /// The holder has what was lent no longer; others may have it from there.
    pub(super) fn holder_ended(&self, id: u64) {
        let marker = self.loans.borrow().loan(id).and_then(|loan| loan.marker.clone());
        if let Some(marker) = marker {
            self.forget_marker(&marker);
        }
        self.loans.borrow_mut().holder_ended(id);
    }

    /// Removes the lent files of holders that ended while no daemon ran.
    pub(crate) fn remove_files_left(&self) {
        if let Ok(Some(place)) = Place::existing(&self.paths) {
            // What cannot be listed now is looked at again by the next daemon.
            let _ = place.sweep();
        }
    }

    pub(super) fn end_all_loans(&self, why: &'static str) {
        let out: Vec<u64> = self.loans.borrow().out().map(|(id, _)| id).collect();
        for id in out {
            self.end_loan(id, why);
        }
    }

    pub(super) fn end_expired(&self) {
        let expired = self.loans.borrow().expired(clock::since_boot());
        for id in expired {
            self.end_loan(id, "its time is up");
        }
    }

    /// The reply never reached the client: nothing was lent.
    pub(crate) fn undelivered(&self, loan: u64) {
        let _ = self.record(&Event::Undelivered { loan }, Durable::Soon);
        self.end_loan(loan, "it could not be delivered");
    }

    /// Looks for processes that still hold what ended loans lent, and forgets the loans that nobody holds.
    pub(crate) async fn look_for_holders(&self) {
        self.take_back_from_shells();
        if self.loans.borrow().all().all(|(_, loan)| loan.over.is_none()) {
            return;
        }
        // One that never returns must not be followed by others that do not either.
        let Ok(alone) = timeout(GRACE, Arc::clone(&self.looking).lock_owned()).await else { return };
        let wanted: Vec<(u64, LoanName, bool)> = {
            let loans = self.loans.borrow();
            let over = || loans.all().filter(|(_, loan)| loan.over.is_some());
            // Of more than one look takes, others each time.
            let skipped = if over().count() > LOOK { self.looked_at.get() } else { 0 };
            let wanted: Vec<_> = over()
                .filter(|(id, _)| *id > skipped)
                .take(LOOK)
                .map(|(id, loan)| (id, name(id, loan), loan.has_files))
                .collect();
            self.looked_at.set(wanted.last().filter(|_| wanted.len() == LOOK).map_or(0, |(id, ..)| *id));
            wanted
        };
        let look = move || {
            let _alone = alone;
            holders(&wanted)
        };
        let Some(found) = patience::look(look).await else { return };
        let mut loans = self.loans.borrow_mut();
        for (id, mut held_by) in found {
            // A holder whose environment cannot be read is still one.
            if let Some(loan) = loans.loan(id)
                && loan.over.as_ref().is_some_and(|over| over.holder_lives)
                && !held_by.iter().any(|holding| holding.pid == loan.pid.unsigned_abs())
            {
                held_by.insert(0, Holding { pid: loan.pid.unsigned_abs(), program: loan.program.clone() });
            }
            loans.found(id, held_by);
        }
    }

    pub(crate) async fn list_loans(&self) -> Reply {
        self.look_for_holders().await;
        let loans = self.loans.borrow();
        Reply::Loans { loans: loans.all().map(|(id, loan)| summary(id, loan)).collect() }
    }

    /// Ends loans at somebody's wish. What a process has read cannot be taken back: it is said who has it.
    pub(crate) async fn recall(&self, loan: Option<u64>, kill: bool) -> Result<Reply, Refusal> {
        let recalled: Vec<u64> = {
            let loans = self.loans.borrow();
            let wanted = loans.all().filter(|(id, _)| loan.is_none_or(|loan| loan == *id));
            wanted.map(|(id, _)| id).collect()
        };
        if let (Some(loan), true) = (loan, recalled.is_empty()) {
            return Err(Refusal::NotFound { what: "loan", name: loan.to_string() });
        }
        for id in &recalled {
            self.end_loan(*id, "recalled");
        }
        if kill {
            self.end_holders(&recalled).await;
        }
        self.look_for_holders().await;
        let loans = self.loans.borrow();
        let held = recalled.iter().filter_map(|id| Some(summary(*id, loans.loan(*id)?))).collect();
        Ok(Reply::Recalled { recalled, held })
    }

    /// Ends the holders' process groups, and whatever else holds the loans: asked at first, then not.
    async fn end_holders(&self, loans: &[u64]) {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            self.look_for_holders().await;
            if !self.signal_holders(loans, signal) {
                return;
            }
            if timeout(GRACE, self.until_held_by_nobody(loans)).await.is_ok() {
                return;
            }
        }
    }

    /// One that came after the look, from a holder that was just ending, is found by the next.
    async fn until_held_by_nobody(&self, loans: &[u64]) {
        loop {
            self.look_for_holders().await;
            let held_by: Vec<u32> = {
                let table = self.loans.borrow();
                let mut left = loans.iter().filter_map(|id| table.loan(*id)).peekable();
                if left.peek().is_none() {
                    return;
                }
                left.flat_map(|loan| &loan.over).flat_map(|over| &over.held_by).map(|held| held.pid).collect()
            };
            for pid in held_by.into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
                match process::pidfd(pid).and_then(readiness::watch) {
                    Ok(holder) => drop(holder.readable().await),
                    Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => {}
                    // It cannot be watched, and looking again and again would only keep the machine busy.
                    Err(_) => std::future::pending().await,
                }
            }
            // Who watches each loan's holder has its turn.
            tokio::task::yield_now().await;
        }
    }

    /// False when nobody was there to be signalled.
    fn signal_holders(&self, wanted: &[u64], signal: Signal) -> bool {
        let loans = self.loans.borrow();
        let mut any = false;
        for loan in wanted.iter().filter_map(|id| loans.loan(*id)) {
            // The start time tells the holder from a later process of the same number.
            if let Some(stat) = process::stat(loan.pid).filter(|stat| stat.started == loan.started) {
                let group = Pid::from_raw(stat.group);
                let pid = Pid::from_raw(loan.pid);
                // Group 1 is every process, 0 our own (kill(2)); in a namespace either can be the holder's.
                let has_group = stat.group > 1 && group != getpgrp();
                any |= if has_group { killpg(group, signal).is_ok() } else { kill(pid, signal).is_ok() };
                // One that is stopped could not end.
                let _ = if has_group { killpg(group, Signal::SIGCONT) } else { kill(pid, Signal::SIGCONT) };
            }
            for holding in loan.over.iter().flat_map(|over| &over.held_by) {
                if let Ok(pid) = i32::try_from(holding.pid) {
                    any |= kill(Pid::from_raw(pid), signal).is_ok();
                    let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
                }
            }
        }
        any
    }
}

fn name(id: u64, loan: &Loan) -> LoanName {
    LoanName::new(id, loan.pid, loan.started)
}

/// One walk through all processes for all loans.
fn holders(wanted: &[(u64, LoanName, bool)]) -> Vec<(u64, Vec<Holding>)> {
    let mut found: Vec<(u64, Vec<Holding>)> = wanted.iter().map(|(id, ..)| (*id, Vec::new())).collect();
    process::environments(|pid, environment| {
        for ((_, name, has_files), (_, held_by)) in wanted.iter().zip(&mut found) {
            if lent_files::names_loan(environment, name) || (*has_files && lent_files::holds(pid, name)) {
                let program = process::exe(pid).map(|program| program.display().to_string());
                let program = program.unwrap_or_else(|| "an unreadable program".to_owned());
                held_by.push(Holding { pid: pid.unsigned_abs(), program });
            }
        }
    });
    found
}

fn summary(id: u64, loan: &Loan) -> LoanSummary {
    let left = loan.expires.filter(|_| loan.over.is_none());
    LoanSummary {
        id,
        pid: loan.pid.unsigned_abs(),
        program: loan.program.clone(),
        variables: loan.variables.clone(),
        since: loan.since.clone(),
        directory: loan.directory.clone(),
        seconds_left: left.map(|at| at.saturating_sub(clock::since_boot()).as_secs()),
        over: loan.over.as_ref().map(|over| over.why.to_owned()),
        held_by: loan.over.as_ref().map(|over| over.held_by.clone()).unwrap_or_default(),
        references: loan.references.clone(),
    }
}
