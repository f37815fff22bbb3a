//! An approver program that is no script and never answers: what another program can do to it is tried by
//! `tests/security`.
#![forbid(unsafe_code)]

fn main() {
    loop {
        std::thread::park();
    }
}
