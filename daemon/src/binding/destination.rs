//! Where a key that was added with `restrict-destination-v00@openssh.com` may be used (OpenSSH's PROTOCOL.agent section
//! 2; `ssh-add -h`), as OpenSSH's agent decides it in `identity_permitted`. Each function there has one here. Stricter
//! in one thing: a certificate without principals, which is one for every host there is, is for none.
//!
//! Certificates are believed for what they say: the caller verified the authority's signature before the bind.

use super::{Binding, Bound};
use crate::hosts::{certificate_at, pattern};
use keyloan_protocol::ssh_agent::constraint::{Destination, Host};
use keyloan_protocol::ssh_agent::key::PublicKey;

/// Whether the key is shown to whoever is at the other end. It is hidden from a session that may not use it, so that
/// a host in between does not even learn of it.
pub(crate) fn permits_list(destinations: Option<&[Destination]>, binding: &Binding, now: u64) -> bool {
    let Some(destinations) = destinations else { return true };
    // Whoever tried to bind and failed is not local.
    if binding.is_failed() {
        return false;
    }
    let Some(last) = binding.binds.last() else { return true };
    if !permits_hops(destinations, binding, None, now) {
        return false;
    }
    // A key that is good for a login at a host, but for nothing beyond it, is of no use to who asks from there.
    !last.forwarding || permits_hop(destinations, Some(&last.host_key), None, None, now)
}

/// Whether the key may sign a login as `user`; `hostbound` says that the login names the host's key. Whoever calls
/// this has asked [`Binding::login`], which compared session and host, and asks it for logins only: what else a key
/// with destinations would sign has no destination, and is refused.
pub(crate) fn permits_login(
    destinations: Option<&[Destination]>,
    binding: &Binding,
    user: &str,
    hostbound: bool,
    now: u64,
) -> bool {
    let Some(destinations) = destinations else { return true };
    // Without a bind nobody says where the signature goes, nor with one that was not taken.
    if binding.is_failed() {
        return false;
    }
    let Some((last, hops)) = binding.binds.split_last() else { return false };
    // At the end of a forwarding stands a host, not a login.
    if last.forwarding {
        return false;
    }
    // A host on the way could have the signature used for another session that it has with the same id. On the first
    // bind there is no such host, the client is this machine's own, and servers before OpenSSH 8.9 do without.
    if !hops.is_empty() && !hostbound {
        return false;
    }
    permits_hops(destinations, binding, Some(user), now)
}

/// Every hop of the way must be one that is allowed, from the one before it.
fn permits_hops(destinations: &[Destination], binding: &Binding, user: Option<&str>, now: u64) -> bool {
    let mut from: Option<&PublicKey> = None;
    for (number, Bound { host_key, forwarding, .. }) in binding.binds.iter().enumerate() {
        let is_last = number.saturating_add(1) == binding.binds.len();
        // Who logs in somewhere does not forward from there.
        if !is_last && !forwarding {
            return false;
        }
        // Of the hops before nobody knows as whom they were logged in at.
        let user = user.filter(|_| is_last);
        if !permits_hop(destinations, from, Some(host_key), user, now) {
            return false;
        }
        from = Some(host_key);
    }
    true
}

/// OpenSSH's `permitted_by_dest_constraints`. Without `from`: from where the agent is. Without `to`: to anywhere.
fn permits_hop(
    destinations: &[Destination],
    from: Option<&PublicKey>,
    to: Option<&PublicKey>,
    user: Option<&str>,
    now: u64,
) -> bool {
    destinations.iter().any(|destination| {
        let starts = match (from, &destination.from) {
            (None, None) => true,
            (Some(key), Some(host)) => is_host(key, host, now),
            _ => false,
        };
        let user_fits = match (user, &destination.user) {
            (Some(user), Some(wanted)) => pattern::matches(user, wanted),
            _ => true,
        };
        starts && to.is_none_or(|key| is_host(key, &destination.to, now)) && user_fits
    })
}

/// OpenSSH's `match_key_hop`: a plain key is one of the host's own; a certificate is from one of its authorities, and
/// for its name. An authority's key is never a host's own, nor the other way round.
fn is_host(key: &PublicKey, host: &Host, now: u64) -> bool {
    let has = |key: &PublicKey, is_authority: bool| {
        host.keys.iter().any(|host_key| host_key.is_authority == is_authority && host_key.key == *key)
    };
    if key.certificate().is_none() {
        return has(key, false);
    }
    // The name is the pattern: it is what the owner of the key wrote.
    certificate_at(key, now).is_some_and(|certificate| {
        let mut principals = certificate.principals.iter();
        has(&certificate.authority, true) && principals.any(|name| pattern::matches(name, &host.name))
    })
}
