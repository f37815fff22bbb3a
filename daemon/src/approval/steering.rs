//! What would steer a command elsewhere: its environment, and where its program lies. All of it is chosen by
//! the requester, so it is looked at with a limit, and what cannot be looked at is a warning of its own.

use super::question::{Certainty, Question};
use crate::patience;
use crate::requester::Requester;
use keyloan_platform::process;
use keyloan_protocol::env_vars;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What was seen; nothing where it could not be looked at.
#[derive(Default)]
pub(crate) struct Steering {
    /// Names in the environment that the requester's program started with.
    environment: Option<Vec<String>>,
    /// Whether others may write to the directory of the program.
    open_to_others: Option<bool>,
}

impl Steering {
    pub(crate) async fn of(requester: &Requester) -> Self {
        let pid = requester.peer.pid;
        let environment = patience::look(move || process::environment_names(pid)).await.flatten();
        let names = environment.map(|names| {
            let names = names.iter().filter_map(|name| name.to_str());
            let steering = names.filter(|name| env_vars::steers(name) && !env_vars::is_everyday(name));
            let mut names: Vec<String> = steering.map(str::to_owned).collect();
            names.sort_unstable();
            names
        });
        let directory = requester.claimed.program.as_deref().and_then(Path::parent).map(Path::to_owned);
        let open_to_others = match directory.filter(|_| requester.shares_our_mounts) {
            Some(directory) => patience::look(move || others_may_write(&directory)).await.flatten(),
            None => Some(false),
        };
        Self { environment: names, open_to_others }
    }
}

impl Question {
    /// `what` is that which would be steered.
    pub(crate) fn warn_of_steering(&mut self, requester: &Requester, seen: Steering, what: &str) {
        match seen.environment {
            None => {
                let text = format!("the environment could not be read: what steers {what} is not known");
                self.line("warning", &text, Certainty::Seen);
            }
            Some(names) if names.is_empty() => {}
            Some(mut names) if requester.claimed.clean_env => {
                names.push("by --clean-env".to_owned());
                self.list("dropped", &names, ", ", Certainty::Claimed);
            }
            Some(mut names) => {
                names[0].insert_str(0, &format!("the environment steers {what}: "));
                self.list("warning", &names, ", ", Certainty::Seen);
            }
        }
        let Some(program) = &requester.claimed.program else { return };
        if let Some(directory) = requester.seen_directory()
            && program.starts_with(directory)
        {
            self.line("warning", "the program lies in the directory it is started from", Certainty::Claimed);
        }
        let directory = program.parent().unwrap_or(program).display();
        match seen.open_to_others {
            Some(false) => {}
            Some(true) => self.line("warning", &format!("others may write to {directory}"), Certainty::Seen),
            None => self.line("warning", &format!("{directory} could not be looked at"), Certainty::Seen),
        }
    }
}

/// `None` where that cannot be said.
fn others_may_write(directory: &Path) -> Option<bool> {
    std::fs::metadata(directory).ok().map(|found| found.mode() & 0o022 != 0)
}
