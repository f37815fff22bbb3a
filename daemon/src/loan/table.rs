//! The loans. A loan ends once, whatever ends it.

use keyloan_protocol::names::VarName;
use std::collections::BTreeMap;

pub(crate) struct Loan {
    pub(crate) pid: i32,
    pub(crate) program: String,
    pub(crate) directory: String,
    pub(crate) variables: Vec<VarName>,
    /// RFC 3339.
    pub(crate) since: String,
}

#[derive(Default)]
pub(crate) struct Table {
    last: u64,
    out: BTreeMap<u64, Loan>,
}

impl Table {
    /// Numbers start anew with each daemon; the log's records are told apart by their own sequence.
    pub(crate) fn begin(&mut self, loan: Loan) -> u64 {
        self.last += 1;
        self.out.insert(self.last, loan);
        self.last
    }

    /// The loan, if it had not ended before.
    pub(crate) fn end(&mut self, id: u64) -> Option<Loan> {
        self.out.remove(&id)
    }

    pub(crate) fn out(&self) -> impl Iterator<Item = (u64, &Loan)> {
        self.out.iter().map(|(id, loan)| (*id, loan))
    }

    pub(crate) fn count(&self) -> usize {
        self.out.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loan_ends_once() {
        let mut table = Table::default();
        let loan = || Loan {
            pid: 1,
            program: String::new(),
            directory: String::new(),
            variables: Vec::new(),
            since: String::new(),
        };
        let (first, second) = (table.begin(loan()), table.begin(loan()));
        assert!(first != second && table.count() == 2);
        assert!(table.end(first).is_some());
        assert!(table.end(first).is_none());
        assert_eq!(table.out().map(|(id, _)| id).collect::<Vec<_>>(), [second]);
    }
}
