//! Requests that may make an account. They go on when whoever asked is gone, so that what they make is known and can be
//! ended; of one whose answer does not come that is not known, and is said.

use super::Signed;
use super::api;
use super::session::Token;
use crate::vault::linked::http::Answer;
use crate::vault::linked::lease::Made;
use crate::vault::linked::{Fault, Lease};
use hyper::Method;
use keyloan_protocol::names::ItemName;
use keyloan_protocol::secret::SecretBytes;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// What a server may take for one. The vault's own patience ends before, and `revoke` is tried for longer.
const MAKING: Duration = Duration::from_secs(60);

impl Signed<'_> {
    pub(super) async fn make(&mut self, item: &ItemName, path: &str) -> Result<Answer, Fault> {
        let lease = Rc::new(Lease::of(item));
        self.call.leases.borrow_mut().push(Rc::clone(&lease));
        self.makes = Some(Rc::clone(&lease));
        let answer = self.send(Method::GET, path, None).await;
        self.makes = None;
        // What makes nothing, such as an account that is there for good, may be given out without a loan.
        if lease.is_nothing() {
            self.call.leases.borrow_mut().retain(|one| !Rc::ptr_eq(one, &lease));
        }
        answer
    }

    pub(super) async fn send_with(
        &mut self,
        method: Method,
        path: &str,
        token: &Token,
        json: Option<SecretBytes>,
    ) -> Result<Answer, Fault> {
        let Some(lease) = self.makes.clone() else {
            return self.talk.send(method, path, Some(&token.value), json).await;
        };
        let mut talk = std::mem::replace(&mut self.talk, self.vault.api.talk());
        let (path, token) = (path.to_owned(), Arc::clone(&token.value));
        lease.is(Made::Asked);
        let asked = tokio::task::spawn_local(async move {
            if let Err(fault) = talk.connected().await {
                lease.is(Made::Nothing);
                return Err(fault);
            }
            let late = |_| Err(Fault::Unreachable("the server did not answer in time".to_owned()));
            let sent = talk.send(method, &path, Some(&token), json);
            let answer = timeout(MAKING, sent).await.unwrap_or_else(late);
            lease.is(made(&answer));
            Ok((talk, answer?))
        });
        let (talk, answer) = asked.await.map_err(|_| api::garbage())??;
        self.talk = talk;
        Ok(answer)
    }
}

fn made(answer: &Result<Answer, Fault>) -> Made {
    let Ok(answer) = answer else { return Made::Unknown };
    match (answer.status, api::body(answer)) {
        // Said by what stands before the server, which does not know either.
        (502 | 504, _) => Made::Unknown,
        _ if !api::is_good(answer) => Made::Nothing,
        (_, Err(_)) => Made::Unknown,
        (_, Ok(body)) => body.lease_id.filter(|id| !id.is_empty()).map_or(Made::Nothing, Made::Lease),
    }
}
