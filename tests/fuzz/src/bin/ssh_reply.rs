//! Replies of the agents behind keyloan, with the keys and signatures in them.
#![no_main]

use keyloan_fuzz::{message, public_key, signature};
use keyloan_protocol::ssh_agent::message::Reply;
use keyloan_protocol::ssh_agent::session_bind;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(reply) = Reply::parse(data) else { return };
    let frame = reply.encode().expect("what came in a frame fits into one");
    match &reply {
        // It has three numbers.
        Reply::Failure => assert_eq!(message(&frame), [5]),
        _ => assert_eq!(message(&frame), data),
    }
    match reply {
        Reply::Identities(identities) => identities.iter().for_each(|identity| public_key(&identity.blob)),
        Reply::Signature(blob) => signature(&blob),
        Reply::Extension { contents, .. } => {
            if let Ok(names) = session_bind::parse_query_reply(&contents) {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                assert_eq!(session_bind::query_reply(&names), contents);
            }
        }
        Reply::Success | Reply::Failure | Reply::ExtensionFailure => {}
    }
});
