//! What a vault makes for one loan and is asked to end with it, also while nobody knows yet whether it was made: whoever
//! asked may be gone before the answer comes.

use keyloan_protocol::names::ItemName;
use std::cell::RefCell;
use tokio::sync::Notify;

/// An account that a vault made for one loan, or was asked to make.
pub(crate) struct Lease {
    pub(crate) item: ItemName,
    made: RefCell<Made>,
    /// For the one who ends it.
    answered: Notify,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Made {
    /// The request is under way, whoever waits for it or not.
    Asked,
    Nothing,
    /// By the vault's own name.
    Lease(String),
    /// No answer came that says it.
    Unknown,
}

impl Lease {
    pub(crate) fn of(item: &ItemName) -> Self {
        Self { item: item.clone(), made: RefCell::new(Made::Nothing), answered: Notify::new() }
    }

    pub(crate) fn is(&self, made: Made) {
        *self.made.borrow_mut() = made;
        self.answered.notify_one();
    }

    pub(crate) fn is_nothing(&self) -> bool {
        *self.made.borrow() == Made::Nothing
    }

    /// Waits for the answer.
    pub(crate) async fn made(&self) -> Made {
        loop {
            let made = self.made.borrow().clone();
            if made != Made::Asked {
                return made;
            }
            self.answered.notified().await;
        }
    }
}
