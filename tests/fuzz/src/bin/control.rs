//! Frames of the control socket, of both directions: a client that lies, and a socket that is not the daemon's.
#![no_main]

use keyloan_protocol::control::request::Request;
use keyloan_protocol::control::response::Reply;
use keyloan_protocol::control::{self, Message};
use keyloan_protocol::frame;
use serde::Serialize;
use serde::de::DeserializeOwned;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((prefix, _)) = data.split_first_chunk() else { return };
    let Ok(lengths) = frame::lengths(*prefix) else { return };
    // The rest of the input is header and tail in turn, whatever tail was announced.
    let body = &data[frame::PREFIX..];
    let (header, tail) = body.split_at(lengths.header.min(body.len()));
    both_ways::<Request>(header, tail);
    both_ways::<Reply>(header, tail);
});

/// What is written of a message is read as the same message.
fn both_ways<B: Serialize + DeserializeOwned>(header: &[u8], tail: &[u8]) {
    let Ok(message) = control::decode::<B>(header, tail) else { return };
    let written = control::encode(&message).expect("what came in a frame fits into one");
    let again = read::<B>(&written);
    assert_eq!(again.values.len(), message.values.len());
    for (one, other) in again.values.iter().zip(&message.values) {
        assert!(one.name == other.name && one.bytes.expose() == other.bytes.expose());
    }
    assert!(control::encode(&again).expect("it is as long as before") == written);
}

fn read<B: DeserializeOwned>(frame: &[u8]) -> Message<B> {
    let (prefix, body) = frame.split_first_chunk().expect("a frame has its lengths");
    let lengths = frame::lengths(*prefix).expect("what is written is within the caps");
    assert_eq!(body.len(), lengths.header + lengths.tail);
    let (header, tail) = body.split_at(lengths.header);
    control::decode(header, tail).expect("what is written is understood")
}
