//! A server of OpenBao or HashiCorp Vault: fields of its KV engine, accounts that it makes for a loan and ends with it,
//! and ssh certificates.
//!
//! References to one path are one request, and all of a call go over one connection. An account is made once for a
//! call, so that its name and its password belong together.

mod api;
#[cfg(test)]
mod certificate_tests;
mod engine;
mod making;
mod paths;
mod session;
mod wrapped;

use super::certificates::Ca;
use super::http::{Answer, Server};
use super::lease::Made;
use super::links::Link;
use super::{Call, CertificateAsk, Doing, Fault, Lease, LinkedVault, Listed, Read};
use api::{Api, Talk};
use engine::Engine;
use hyper::Method;
use keyloan_protocol::names::{VaultName, escaped};
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use paths::{Mounts, encoded};
use serde::{Deserialize, Serialize};
use session::{Session, SignIn, Token};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;

/// The longest ssh certificate.
const CERTIFICATE: usize = 64 * 1024;

pub(super) struct OpenBao {
    name: VaultName,
    api: Rc<Api>,
    session: Rc<Session>,
    mounts: Mounts,
    /// The engine that signs ssh keys.
    ssh: String,
    approle: String,
    /// What the engines are, as far as that was asked for.
    engines: RefCell<HashMap<String, Engine>>,
}

/// A conversation of somebody who is signed in.
struct Signed<'a> {
    vault: &'a OpenBao,
    call: &'a Call,
    talk: Talk,
    token: Option<Token>,
    /// What the next request asks for, if it makes something.
    makes: Option<Rc<Lease>>,
    /// Ends what is over.
    ends: bool,
}

#[derive(Serialize)]
struct Revoke<'a> {
    lease_id: &'a str,
    /// Else the answer says only that it will be tried.
    sync: bool,
}

#[derive(Serialize)]
struct Sign<'a> {
    public_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_principals: Option<String>,
    ttl: String,
    cert_type: &'static str,
}

#[derive(Deserialize)]
struct SignedKey {
    signed_key: String,
}

impl OpenBao {
    pub(super) fn open(link: &Link) -> Result<Self, Fault> {
        let setting = |key: &str, otherwise: &'static str| link.setting(key).unwrap_or(otherwise).to_owned();
        let mounts = Mounts::parse(&setting("mount", "secret"), &setting("mounts", ""))?;
        let engines = match link.setting("kv") {
            None => HashMap::new(),
            Some("1") => HashMap::from([(mounts.main.clone(), Engine::Kv1)]),
            Some("2") => HashMap::from([(mounts.main.clone(), Engine::Kv2)]),
            Some(_) => return Err(Fault::Broken("kv takes 1 or 2".to_owned())),
        };
        let approle = paths::mount(&setting("approle", "approle"))?;
        let how = match (link.setting("token-file"), link.setting("role-id")) {
            (Some(_), Some(_)) => {
                return Err(Fault::Broken("token-file and role-id are two ways to sign in".to_owned()));
            }
            (Some(path), None) => SignIn::File(PathBuf::from(path)),
            (None, Some(id)) => SignIn::Role { id: id.to_owned(), mount: approle.clone() },
            (None, None) => SignIn::Token,
        };
        let server = Server::parse(&setting("address", ""), Ca::of(link)?)?;
        let namespace = link.setting("namespace").map(|text| SecretBytes::copy_of(text.as_bytes()));
        Ok(Self {
            name: link.name.clone(),
            api: Rc::new(Api { server, namespace }),
            session: Rc::new(Session::new(how)),
            mounts,
            ssh: paths::mount(&setting("ssh", "ssh"))?,
            approle,
            engines: RefCell::new(engines),
        })
    }

    fn signed<'a>(&'a self, call: &'a Call) -> Signed<'a> {
        Signed { vault: self, call, talk: self.api.talk(), token: None, makes: None, ends: false }
    }
}

impl Signed<'_> {
    /// A request with the token; where that was got by a login and is not good any more, with one of a new login.
    async fn send(&mut self, method: Method, path: &str, json: Option<SecretBytes>) -> Result<Answer, Fault> {
        let session = &self.vault.session;
        if !self.ends {
            session.check()?;
        }
        let token = match self.token.take() {
            Some(token) => token,
            None => session.token(&self.vault.api, &mut self.talk, self.call).await?,
        };
        let again = json.as_ref().filter(|_| token.is_old).map(|json| SecretBytes::copy_of(json.expose()));
        let answer = self.send_with(method.clone(), path, &token, json).await?;
        if answer.status != 403 {
            self.token = Some(token);
            return Ok(answer);
        }
        // The server says the same of a policy's no and of a token that it does not know.
        let known = self.talk.send(Method::GET, "auth/token/lookup-self", Some(&token.value), None).await?;
        if known.status != 403 {
            self.token = Some(token);
            return Ok(answer);
        }
        if !token.is_old {
            return Err(Fault::SignedOut);
        }
        session.forget(&token.value).await;
        let token = session.token(&self.vault.api, &mut self.talk, self.call).await?;
        let answer = self.send_with(method, path, &token, again).await?;
        self.token = Some(token);
        Ok(answer)
    }

    async fn get(&mut self, path: &str) -> Result<Answer, Fault> {
        self.send(Method::GET, path, None).await
    }
}

impl LinkedVault for OpenBao {
    fn state<'a>(&'a self, call: &'a Call) -> Doing<'a, ()> {
        Box::pin(async {
            let answer = self.signed(call).get("auth/token/lookup-self").await?;
            match answer.status {
                403 => Err(Fault::SignedOut),
                _ if !api::is_good(&answer) => Err(api::fault(&answer, "the token")),
                _ => api::part::<api::Fields>(api::body(&answer)?.data).map(drop),
            }
        })
    }

    fn list<'a>(&'a self, call: &'a Call) -> Doing<'a, Vec<Listed>> {
        Box::pin(async { self.signed(call).list().await })
    }

    fn read<'a>(&'a self, call: &'a Call, wanted: &'a [Reference]) -> Doing<'a, Vec<Read>> {
        Box::pin(async { self.signed(call).read(wanted).await })
    }

    fn write<'a>(&'a self, call: &'a Call, at: &'a Reference, value: &'a SecretBytes) -> Doing<'a, ()> {
        Box::pin(async { self.signed(call).write(at, value).await })
    }

    /// What is made anew at each read is not.
    fn lasts(&self, at: &Reference) -> bool {
        let place = self.mounts.place(at.item.as_str());
        let engines = self.engines.borrow();
        place.is_ok_and(|place| engines.get(place.mount).is_some_and(|engine| *engine != Engine::Other))
    }

    fn certificate<'a>(&'a self, call: &'a Call, ask: &'a CertificateAsk) -> Doing<'a, String> {
        Box::pin(async {
            // The server takes them as one text.
            if let Some(odd) = ask.principals.iter().find(|user| user.is_empty() || user.contains(',')) {
                return Err(Fault::Refused(format!("'{}' is no user's name", escaped(odd, 100))));
            }
            let sign = api::json(&Sign {
                public_key: &ask.public,
                valid_principals: (!ask.principals.is_empty()).then(|| ask.principals.join(",")),
                ttl: format!("{}s", ask.ttl.as_secs().max(1)),
                cert_type: "user",
            })?;
            let role = paths::mount(&ask.role).ok().filter(|role| !role.contains('/'));
            let role = role.ok_or_else(|| Fault::Refused("that is no name of a role".to_owned()))?;
            let path = format!("{}/sign/{}", encoded(&self.ssh), encoded(&role));
            let answer = self.signed(call).send(Method::POST, &path, Some(sign)).await?;
            if !api::is_good(&answer) {
                return Err(api::fault(&answer, &format!("{}/sign/{role}", self.ssh)));
            }
            let SignedKey { signed_key } = api::part(api::body(&answer)?.data)?;
            let line = signed_key.trim_end();
            let is_certificate =
                line.split(' ').next().is_some_and(|kind| kind.contains("-cert-v01@openssh.com"));
            let is_line = line.len() <= CERTIFICATE && line.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            if is_certificate && is_line { Ok(line.to_owned()) } else { Err(api::garbage()) }
        })
    }

    fn settle<'a>(&'a self, call: &'a mut Call) -> Doing<'a, ()> {
        Box::pin(async {
            let Some(wrapping) = call.secrets.take(session::WRAPPED) else { return Ok(()) };
            let mut talk = self.api.talk();
            let unwrapped = wrapped::unwrapped(&mut talk, &wrapping, &self.approle).await?;
            call.secrets.put(session::SECRET_ID, unwrapped);
            // Said now, since the wrapping token does not give it out again.
            let lost = |fault: Fault| {
                Fault::Refused(format!(
                    "signing in with the secret id that was wrapped: {fault}; the wrapping token is used up by that, \
                     and the secret id is not kept: have it revoked and get another, and look at the role id"
                ))
            };
            self.session.token(&self.api, &mut talk, call).await.map(drop).map_err(lost)
        })
    }

    fn revoke<'a>(&'a self, call: &'a Call, lease: &'a Lease) -> Doing<'a, ()> {
        Box::pin(async {
            let id = match lease.made().await {
                Made::Lease(id) => id,
                Made::Nothing | Made::Asked => return Ok(()),
                Made::Unknown => {
                    let cause = "the server's answer did not come, and whether it was made is not known";
                    return Err(Fault::Refused(cause.to_owned()));
                }
            };
            let revoke = api::json(&Revoke { lease_id: &id, sync: true })?;
            let mut signed = Signed { ends: true, ..self.signed(call) };
            let answer = signed.send(Method::POST, "sys/leases/revoke", Some(revoke)).await;
            if self.session.is_over() {
                // Nobody else would end this login. What was lent ends with it, too.
                let _ = self.sign_out().await;
            }
            let answer = answer?;
            if api::is_good(&answer) { Ok(()) } else { Err(api::fault(&answer, "sys/leases/revoke")) }
        })
    }

    fn sign_out(&self) -> Doing<'_, ()> {
        Box::pin(async { self.session.sign_out(&mut self.api.talk()).await })
    }

    fn hint(&self, fault: &Fault) -> Option<String> {
        let again = format!("keyloan vault add --replace {}", self.name);
        match (fault, &self.session.how) {
            (Fault::SignedOut, SignIn::Token) => Some(format!("give it another token: {again}")),
            (Fault::SignedOut, SignIn::Role { .. }) => Some(format!("give it another secret id: {again}")),
            (Fault::SignedOut, SignIn::File(path)) => Some(format!(
                "{} holds no token that is good: sign in again, or see to the agent",
                path.display()
            )),
            (Fault::Locked(_), _) => {
                Some("whoever keeps the server unseals it: bao operator unseal".to_owned())
            }
            (Fault::Deleted(_), _) => Some("bao kv undelete brings it back".to_owned()),
            (Fault::Refused(_), _) => Some(
                "docs/vaults.md says what keyloan asks of a server, and what its policies have to allow"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
