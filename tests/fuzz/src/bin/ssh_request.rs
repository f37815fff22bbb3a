//! Requests of ssh clients: any program of the user, and through forwarding any host.
#![no_main]

use keyloan_fuzz::message;
use keyloan_protocol::ssh_agent::message::Request;
use keyloan_protocol::ssh_agent::session_bind::Extension;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(request) = Request::parse(data) else { return };
    let frame = request.encode().expect("what came in a frame fits into one");
    let written = message(&frame);
    match &request {
        // Only their number is kept.
        Request::Obsolete(_) | Request::Unknown(_) => assert_eq!(written, &data[..1]),
        // The order of constraints, and what is true in them, is open.
        Request::Add(add) if add.constraints.is_some() => same_again(written, data),
        Request::AddToken(add) if add.constraints.is_some() => same_again(written, data),
        // It ends with a boolean.
        Request::Extension(Extension::SessionBind(_)) => {
            same_again(written, data);
            assert_eq!(written[..written.len() - 1], data[..data.len() - 1]);
        }
        _ => assert_eq!(written, data),
    }
});

/// Where the standards leave a choice, the bytes are as many, and what is written has one form.
fn same_again(written: &[u8], data: &[u8]) {
    assert_eq!(written.len(), data.len());
    let again = Request::parse(written).expect("what is written is understood");
    assert_eq!(message(&again.encode().expect("it is as long as before")), written);
}
