//! A secret id that comes wrapped: a token that gives it out once. Somebody who took it on the way is noticed, since
//! then it gives out nothing any more, or something that was wrapped anew.

use super::api::{self, Talk};
use crate::vault::linked::Fault;
use crate::vault::linked::http::Answer;
use hyper::Method;
use keyloan_protocol::secret::SecretBytes;
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
struct Lookup<'a> {
    token: &'a str,
}

#[derive(Deserialize)]
struct Made {
    creation_path: String,
}

#[derive(Deserialize)]
struct Inside {
    secret_id: String,
}

fn taken() -> Fault {
    Fault::Refused(
        "the wrapping token gives out nothing any more: it is too old, or was used before, and if not by a \
         'vault add' of yours then by somebody who took it"
            .to_owned(),
    )
}

/// The secret id behind a wrapping token, which is then used up.
pub(super) async fn unwrapped(
    talk: &mut Talk,
    wrapping: &SecretBytes,
    role_mount: &str,
) -> Result<SecretBytes, Fault> {
    let token = str::from_utf8(wrapping.expose()).map_err(|_| taken())?;
    let lookup = api::json(&Lookup { token })?;
    let answer = talk.send(Method::POST, "sys/wrapping/lookup", None, Some(lookup)).await?;
    let made: Made = api::part(api::body(checked(&answer, "looking at the wrapping token")?)?.data)?;
    // Whoever had opened it could have wrapped a secret id of their own choice.
    let is_of_role = made.creation_path.strip_prefix(&format!("auth/{role_mount}/role/"));
    if !is_of_role.is_some_and(|rest| rest.ends_with("/secret-id")) {
        let cause = "the wrapping token was not made for a secret id of this AppRole, so it is not opened";
        return Err(Fault::Refused(cause.to_owned()));
    }
    let answer = talk.send(Method::POST, "sys/wrapping/unwrap", Some(wrapping), None).await?;
    let inside: Inside = api::part(api::body(checked(&answer, "unwrapping the secret id")?)?.data)?;
    Ok(SecretBytes::new(inside.secret_id.into_bytes()))
}

fn checked<'a>(answer: &'a Answer, about: &str) -> Result<&'a Answer, Fault> {
    match answer.status {
        400 | 403 => Err(taken()),
        _ if api::is_good(answer) => Ok(answer),
        _ => Err(api::fault(answer, about)),
    }
}
