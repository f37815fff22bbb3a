//! Which way a question would go, as far as it can be told before there is one.

use super::Broker;
use crate::policy::order::Way;

impl Broker {
    /// For `status`: the ways in their order, up to the first that is surely there.
    pub(super) fn where_questions_go(&self) -> String {
        let policy = self.with_policy(Clone::clone).unwrap_or_default();
        let denied = self.queue.board.denied_for().div_ceil(60);
        if denied > 0 {
            return format!("are denied for another {denied} min; keyloan unlock ends that");
        }
        let desktop = self.desktop();
        let (mut ways, mut windowless) = (Vec::new(), None);
        for way in policy.order.ways() {
            let (text, is_sure) = match way {
                Way::Program if let Some(program) = &policy.approver => {
                    (format!("the approver program {}", program.path.display()), true)
                }
                Way::Approve if let Some(board) = self.queue.board.terminal() => {
                    (format!("keyloan approve on {board}, with the PIN"), true)
                }
                Way::Window if let Some(desktop) = &desktop => {
                    let Some(program) = desktop.programs().next() else {
                        windowless = Some(format!(" (for {} there is no pinentry)", desktop.name));
                        continue;
                    };
                    (format!("a window on {} ({}), with the PIN", desktop.name, program.display()), false)
                }
                Way::Askpass if let (Some(program), Some(desktop)) = (&policy.askpass, &desktop) => {
                    let path = program.path.display();
                    (format!("the askpass program {path} on {}, with the PIN", desktop.name), true)
                }
                Way::Terminal => ("the requester's own terminal, with the PIN".to_owned(), false),
                _ => continue,
            };
            ways.push(text);
            if is_sure {
                break;
            }
        }
        if ways.is_empty() {
            ways.push(format!(
                "nowhere, so they are refused: of approver.order ({}) none is there",
                policy.order
            ));
        }
        ways.join("; else ") + &windowless.unwrap_or_default()
    }
}
