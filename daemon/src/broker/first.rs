//! Whether a program is given something for the first time. Worked out only where a human is asked: a rule gives the
//! same to whoever comes, and its requests are neither slowed down by this nor counted.

use super::{Act, Broker, Refusal};
use crate::approval::question::{Certainty, Question};
use crate::audit::given::{Before, Given};
use crate::policy::rule::Kind;
use crate::requester::Requester;
use zeroize::Zeroizing;

const LABEL: &str = "first use";
const UNREAD: &str = "not known yet: the log is still being read";
/// It may be the program that hides which is new.
const HIDDEN: &str = "cannot be told: a program on the way to this request does not show itself";

/// What a yes would give to which programs; `None` where it gives nothing away.
pub(super) fn given(requester: &Requester, act: &Act) -> Option<Given> {
    let mut what: Vec<String> = Vec::new();
    for (_, subject) in &act.subjects {
        what.extend(subject.given.iter().filter(|given| !what.contains(given)).cloned().collect::<Vec<_>>());
    }
    if what.is_empty() {
        return None;
    }
    let to = requester.identity(is_signature(act)).unwrap_or_default();
    Some(Given { to: to.iter().map(|program| program.display().to_string()).collect(), what })
}

fn is_signature(act: &Act) -> bool {
    let kinds = [Kind::SshLogin, Kind::SshSignature, Kind::SshOther];
    act.subjects.iter().any(|(kind, _)| kinds.contains(kind))
}

impl Broker {
    /// Without this line it is not the first time; so where that is not known there is one, too.
    pub(super) fn show_first_time(&self, question: &mut Question, given: Option<&Given>, act: &Act) {
        let Some(given) = given else { return };
        let mut say = |text: &str| question.line(LABEL, text, Certainty::Seen);
        if !given.is_known() {
            return say(HIDDEN);
        }
        let never = match self.history.before(given) {
            Before::Unknown => return say(UNREAD),
            Before::Never(never) if never.is_empty() => return,
            Before::Never(never) => never,
        };
        // The label begins the sentence.
        let what = match &never[..] {
            _ if is_signature(act) => "this key".to_owned(),
            [_, _, ..] if never == given.what => "all of this".to_owned(),
            never => never.join(", "),
        };
        let mut parts = given.to.clone();
        parts[0].insert_str(0, &format!("of {what} by "));
        question.list(LABEL, &parts, " ← ", Certainty::Seen);
    }

    /// Begins to read what was given before, once the log's key is there.
    pub(super) fn read_history(&self) -> Result<(), Refusal> {
        let log = self.log.borrow();
        if let Some(key) = self.vault.borrow().audit_key() {
            self.history.read(log.reader()?.0, log.length(), Zeroizing::new(key.to_vec()));
        }
        Ok(())
    }
}
