use super::destination::{permits_list, permits_login};
use super::*;
use crate::hosts::tests::{CERTIFIED, Certified, key};
use keyloan_protocol::ssh_agent::algorithm::SignatureAlgorithm;
use keyloan_protocol::ssh_agent::constraint::{self, Host, HostKey};
use keyloan_protocol::ssh_agent::signature::Signature;

const NOW: u64 = 150;

fn session(number: u8, id: &[u8], forwarding: bool) -> SessionBind {
    with_host_key(key(number), id, forwarding)
}

fn with_host_key(host_key: PublicKey, id: &[u8], forwarding: bool) -> SessionBind {
    SessionBind { host_key, session_id: id.to_vec(), signature: Signature::Ed25519([0; 64]), forwarding }
}

/// Bound to the hosts with those numbers, the last of them for a login unless `forwarding`.
fn bound(hosts: &[u8], forwarding: bool) -> Binding {
    let mut binding = Binding::new();
    for (number, host) in hosts.iter().enumerate() {
        let is_last = number + 1 == hosts.len();
        let id = [b'0' + u8::try_from(number).unwrap()];
        binding.bind(session(*host, &id, !is_last || forwarding), true).unwrap();
    }
    binding
}

fn login(session_id: &[u8], host: Option<u8>) -> Login {
    Login {
        session_id: session_id.to_vec(),
        user: "root".to_owned(),
        algorithm: SignatureAlgorithm::Ed25519,
        key: key(99),
        host_key: host.map(key),
    }
}

fn host(name: &str, keys: &[(u8, bool)]) -> Host {
    let keys = keys.iter().map(|&(number, is_authority)| HostKey { key: key(number), is_authority });
    Host { name: name.to_owned(), keys: keys.collect() }
}

/// `from` 0 is where the agent is; no user is any.
fn hop(from: u8, user: &str, to: u8) -> constraint::Destination {
    constraint::Destination {
        from: (from > 0).then(|| host("from", &[(from, false)])),
        user: (!user.is_empty()).then(|| user.to_owned()),
        to: host("to", &[(to, false)]),
    }
}

#[test]
fn binds_are_kept_in_their_order_until_one_that_logs_in() {
    let mut binding = Binding::new();
    assert!(!binding.is_forwarded() && !binding.is_failed());
    assert_eq!(binding.bind(session(1, b"a", true), true), Ok(()));
    assert_eq!(binding.bind(session(2, b"b", true), true), Ok(()));
    // The same again is no new hop, whatever it says of its direction.
    assert_eq!(binding.bind(session(1, b"a", true), true), Ok(()));
    assert_eq!(binding.bind(session(1, b"a", false), true), Ok(()));
    assert_eq!(binding.bind(session(3, b"a", true), true), Err(BindFault::OtherKey));
    // Another session with the same host is one.
    assert_eq!(binding.bind(session(1, b"c", false), true), Ok(()));
    assert_eq!(binding.hops().cloned().collect::<Vec<_>>(), [key(1), key(2)]);
    assert_eq!(binding.bind(session(1, b"d", true), true), Err(BindFault::Final));
    assert_eq!(binding.bind(session(1, b"c", false), true), Err(BindFault::Final));
    assert!(binding.is_forwarded() && !binding.is_failed());
}

#[test]
fn a_bind_that_is_not_proven_or_comes_too_late_is_refused_and_remembered() {
    let mut binding = Binding::new();
    assert_eq!(binding.bind(session(1, b"a", true), false), Err(BindFault::Signature));
    assert!(binding.is_failed() && !binding.is_forwarded());
    let mut binding = Binding::new();
    assert_eq!(binding.bind(session(1, &[1; 128], true), true), Ok(()));
    assert!(!binding.is_failed());
    assert_eq!(binding.bind(session(1, &[1; 129], true), true), Err(BindFault::SessionId));
    assert!(binding.is_failed());
    let mut binding = Binding::new();
    binding.note_signed();
    assert!(!binding.is_failed());
    assert_eq!(binding.bind(session(1, b"a", false), true), Err(BindFault::Signed));
    assert!(binding.is_failed());
    let mut binding = Binding::new();
    binding.note_failed();
    assert!(binding.is_failed());
}

/// ssh forwards a connection whatever became of its bind, and then the host at the other end can bind it.
#[test]
fn nothing_makes_up_for_a_bind_that_was_not_taken() {
    let destinations = [hop(0, "", 2)];
    for not_taken in [
        |binding: &mut Binding| binding.note_failed(),
        |binding: &mut Binding| {
            binding.bind(session(1, b"a", true), false).unwrap_err();
        },
    ] {
        let mut honest = Binding::new();
        honest.bind(session(2, b"1", false), true).unwrap();
        let honestly = honest.login(&login(b"1", Some(2)));
        assert_eq!(honestly, Ok(Destination::Bound { host_key: &key(2) }));

        let mut binding = Binding::new();
        not_taken(&mut binding);
        assert_eq!(binding.bind(session(2, b"1", false), true), Err(BindFault::Failed));
        assert!(binding.is_failed() && binding.last_host().is_none());
        assert_eq!(binding.login(&login(b"1", Some(2))), Ok(Destination::Unknown));
        assert!(!permits_login(Some(&destinations), &binding, "root", true, NOW));
        assert!(!permits_list(Some(&destinations), &binding, NOW));

        let mut late = Binding::new();
        late.bind(session(2, b"1", false), true).unwrap();
        not_taken(&mut late);
        assert_eq!(late.login(&login(b"1", Some(2))), Ok(Destination::Unknown));
        assert!(!permits_login(Some(&destinations), &late, "root", true, NOW));
    }
}

#[test]
fn a_connection_is_bound_to_sixteen_sessions_at_most() {
    let mut binding = Binding::new();
    for number in 0..16 {
        assert_eq!(binding.bind(session(1, &[number], true), true), Ok(()));
    }
    assert_eq!(binding.bind(session(1, &[15], true), true), Ok(()));
    assert_eq!(binding.bind(session(1, &[16], false), true), Err(BindFault::TooMany));
    assert_eq!(binding.hops().count(), 16);
}

#[test]
fn a_login_goes_where_the_last_bind_says_or_nowhere() {
    let to = |host| Destination::Bound { host_key: host };
    let binding = bound(&[1, 2], false);
    let second = key(2);
    assert_eq!(binding.login(&login(b"1", Some(2))), Ok(to(&second)));
    assert_eq!(binding.login(&login(b"1", None)), Ok(to(&second)));
    assert_eq!(binding.login(&login(b"0", Some(1))), Err(BindFault::OtherSession));
    assert_eq!(binding.login(&login(b"0", Some(2))), Err(BindFault::OtherSession));
    assert_eq!(binding.login(&login(b"1", Some(1))), Err(BindFault::OtherHost));
    assert_eq!(Binding::new().login(&login(b"1", Some(1))), Ok(Destination::Unknown));
    let forwarded = bound(&[1, 2], true);
    assert_eq!(forwarded.login(&login(b"1", Some(2))), Ok(Destination::Unknown));
}

#[test]
fn a_certificate_and_the_plain_key_in_it_are_two_hosts() {
    let mut binding = Binding::new();
    binding.bind(with_host_key(CERTIFIED.make(), b"1", false), true).unwrap();
    assert_eq!(binding.login(&login(b"1", Some(1))), Err(BindFault::OtherHost));
}

/// Hops, whether the last one forwards, and the user, and whether the key is shown and signs.
type Case = (&'static [u8], bool, &'static str, [bool; 2]);

fn check(destinations: &[constraint::Destination], cases: &[Case]) {
    for (hosts, forwarding, user, [shown, signs]) in cases {
        let binding = bound(hosts, *forwarding);
        let said = format!("{hosts:?} {forwarding} {user}");
        assert_eq!(permits_list(Some(destinations), &binding, NOW), *shown, "{said}");
        assert_eq!(permits_login(Some(destinations), &binding, user, true, NOW), *signs, "{said}");
        let hostbound_needed = hosts.len() > 1;
        let without = permits_login(Some(destinations), &binding, user, false, NOW);
        assert_eq!(without, *signs && !hostbound_needed, "{said}");
        assert!(permits_list(None, &binding, NOW) && permits_login(None, &binding, user, false, NOW));
    }
}

#[test]
fn a_key_for_one_host_is_used_there_and_not_beyond() {
    check(
        &[hop(0, "root", 1)],
        &[
            // Shown on a connection without binds, which is local; but what it would sign there goes nowhere.
            (&[], false, "root", [true, false]),
            (&[1], false, "root", [true, true]),
            // A list names no user.
            (&[1], false, "git", [true, false]),
            (&[2], false, "root", [false, false]),
            (&[1], true, "root", [false, false]),
            (&[1, 1], false, "root", [false, false]),
            (&[1, 2], false, "root", [false, false]),
        ],
    );
}

#[test]
fn every_hop_of_a_chain_must_be_allowed_in_its_order() {
    check(
        &[hop(0, "", 1), hop(1, "r*t", 2), hop(2, "", 3)],
        &[
            (&[1], false, "anybody", [true, true]),
            (&[1], true, "root", [true, false]),
            (&[1, 2], false, "root", [true, true]),
            (&[1, 2], false, "rt", [true, true]),
            (&[1, 2], false, "Root", [true, false]),
            (&[1, 2], true, "root", [true, false]),
            // Only the user at the end is known.
            (&[1, 2, 3], false, "anybody", [true, true]),
            (&[1, 2, 3], true, "anybody", [false, false]),
            (&[2], false, "root", [false, false]),
            (&[2, 1], false, "root", [false, false]),
            (&[1, 3], false, "root", [false, false]),
            (&[2, 3], false, "root", [false, false]),
            (&[1, 2, 1], false, "root", [false, false]),
            (&[1, 2, 3, 1], false, "root", [false, false]),
        ],
    );
}

#[test]
fn a_hop_that_starts_elsewhere_is_not_a_first_one() {
    check(&[hop(1, "", 2)], &[(&[], false, "root", [true, false]), (&[1, 2], false, "root", [false, false])]);
}

#[test]
fn nothing_is_shown_where_a_bind_failed() {
    let mut binding = Binding::new();
    let destinations = [hop(0, "", 1)];
    assert!(permits_list(Some(&destinations), &binding, NOW));
    assert!(binding.bind(session(1, b"a", false), false).is_err());
    assert!(!permits_list(Some(&destinations), &binding, NOW) && permits_list(None, &binding, NOW));
}

#[test]
fn a_certificate_is_for_a_host_only_by_its_authority_and_its_name() {
    let signs = |to: Host, certified: Certified<'_>| {
        let mut binding = Binding::new();
        binding.bind(with_host_key(certified.make(), b"a", false), true).unwrap();
        let destinations = [constraint::Destination { from: None, user: None, to }];
        let signs = permits_login(Some(&destinations), &binding, "root", true, NOW);
        assert_eq!(signs, permits_list(Some(&destinations), &binding, NOW));
        signs
    };
    for name in ["a.example", "*.example", "?.example"] {
        assert!(signs(host(name, &[(7, false), (2, true)]), CERTIFIED));
    }
    for (to, certified) in [
        (host("b.example", &[(2, true)]), CERTIFIED),
        (host("A.example", &[(2, true)]), CERTIFIED),
        // The authority as a host, the host as an authority, and the host's own key in a certificate.
        (host("a.example", &[(2, false)]), CERTIFIED),
        (host("a.example", &[(1, true)]), CERTIFIED),
        (host("a.example", &[(1, false)]), CERTIFIED),
        (host("a.example", &[(2, true)]), Certified { principals: &[], ..CERTIFIED }),
        (host("a.example", &[(2, true)]), Certified { principals: &["*.example"], ..CERTIFIED }),
        (host("a.example", &[(2, true)]), Certified { authority: 3, ..CERTIFIED }),
        (host("a.example", &[(2, true)]), Certified { kind: 1, ..CERTIFIED }),
        (host("a.example", &[(2, true)]), Certified { valid: (151, 200), ..CERTIFIED }),
        (host("a.example", &[(2, true)]), Certified { valid: (100, 150), ..CERTIFIED }),
        (host("a.example", &[(2, true)]), Certified { critical: &["later"], ..CERTIFIED }),
    ] {
        assert!(!signs(to, certified));
    }
}
