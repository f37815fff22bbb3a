//! The loans. A loan ends once, whatever ends it; it is forgotten when nothing holds what was lent any more.

use keyloan_protocol::control::response::Holding;
use keyloan_protocol::names::VarName;
use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) struct Loan {
    pub(crate) pid: i32,
    /// When the holder was started, in clock ticks after boot: with the pid it names one process.
    pub(crate) started: u64,
    pub(crate) program: String,
    pub(crate) directory: String,
    pub(crate) variables: Vec<VarName>,
    pub(crate) references: Vec<String>,
    /// RFC 3339.
    pub(crate) since: String,
    /// Time since boot at which it ends by itself.
    pub(crate) expires: Option<Duration>,
    pub(crate) has_files: bool,
    /// The file that tells a shell that its loan lasts.
    pub(crate) marker: Option<String>,
    pub(crate) over: Option<Over>,
}

/// A loan that has ended while something may still hold what was lent.
pub(crate) struct Over {
    pub(crate) why: &'static str,
    pub(crate) holder_lives: bool,
    pub(crate) held_by: Vec<Holding>,
}

#[derive(Default)]
pub(crate) struct Table {
    last: u64,
    loans: BTreeMap<u64, Loan>,
}

impl Table {
    /// Numbers start anew with each daemon; the log's records are told apart by their own sequence.
    pub(crate) fn begin(&mut self, loan: Loan) -> u64 {
        self.last += 1;
        self.loans.insert(self.last, loan);
        self.last
    }

    /// A loan that never came about.
    pub(crate) fn forget(&mut self, id: u64) {
        self.loans.remove(&id);
    }

    /// Ends a loan; `None` if it is unknown or had ended before.
    pub(crate) fn end(&mut self, id: u64, why: &'static str) -> Option<&Loan> {
        let loan = self.loans.get_mut(&id).filter(|loan| loan.over.is_none())?;
        loan.over = Some(Over { why, holder_lives: true, held_by: Vec::new() });
        Some(loan)
    }

    /// The holder's process has ended. Others may have what it left them.
    pub(crate) fn holder_ended(&mut self, id: u64) {
        if let Some(over) = self.loans.get_mut(&id).and_then(|loan| loan.over.as_mut()) {
            over.holder_lives = false;
        }
    }

    /// Who was found to hold what an ended loan lent; with nobody left it is forgotten.
    pub(crate) fn found(&mut self, id: u64, held_by: Vec<Holding>) {
        let Some(over) = self.loans.get_mut(&id).and_then(|loan| loan.over.as_mut()) else { return };
        over.held_by = held_by;
        if over.held_by.is_empty() && !over.holder_lives {
            self.loans.remove(&id);
        }
    }

    pub(crate) fn loan(&self, id: u64) -> Option<&Loan> {
        self.loans.get(&id)
    }

    /// All that were not forgotten.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u64, &Loan)> {
        self.loans.iter().map(|(id, loan)| (*id, loan))
    }

    pub(crate) fn out(&self) -> impl Iterator<Item = (u64, &Loan)> {
        self.all().filter(|(_, loan)| loan.over.is_none())
    }

    /// Loans whose time is up.
    pub(crate) fn expired(&self, now: Duration) -> Vec<u64> {
        let up = |loan: &Loan| loan.expires.is_some_and(|at| at <= now);
        self.out().filter(|(_, loan)| up(loan)).map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loan(expires: Option<Duration>) -> Loan {
        Loan {
            pid: 1,
            started: 0,
            program: String::new(),
            directory: String::new(),
            variables: Vec::new(),
            references: Vec::new(),
            since: String::new(),
            expires,
            has_files: false,
            marker: None,
            over: None,
        }
    }

    #[test]
    fn a_loan_ends_once_and_is_forgotten_when_nobody_holds_it() {
        let mut table = Table::default();
        let (first, second) = (table.begin(loan(None)), table.begin(loan(None)));
        assert!(table.end(first, "recalled").is_some());
        assert!(table.end(first, "the process ended").is_none());
        assert_eq!(table.out().map(|(id, _)| id).collect::<Vec<_>>(), [second]);
        table.found(first, Vec::new());
        assert_eq!(table.loan(first).unwrap().over.as_ref().unwrap().why, "recalled");
        table.holder_ended(first);
        let child = Holding { pid: 7, program: "child".to_owned() };
        table.found(first, vec![child]);
        assert!(table.loan(first).is_some(), "a descendant holds it");
        table.found(first, Vec::new());
        assert!(table.loan(first).is_none());
    }

    #[test]
    fn a_loan_expires_at_its_time_and_not_before() {
        let mut table = Table::default();
        let id = table.begin(loan(Some(Duration::from_secs(10))));
        assert!(table.expired(Duration::from_millis(9999)).is_empty());
        assert_eq!(table.expired(Duration::from_secs(10)), [id]);
        table.end(id, "its time is up");
        assert!(table.expired(Duration::from_secs(20)).is_empty());
    }
}
