//! Every cap of the protocol, in bytes unless said otherwise. A peer that passes one is refused
//! before anything of that size is allocated.

/// What follows the first length of a frame: header length, header and tail.
pub const FRAME: usize = 8 * 1024 * 1024;
/// The JSON header of a frame.
pub const HEADER: usize = 1024 * 1024;
/// Values named by one header (a count).
pub const VALUES: usize = 1024;
/// Descriptors passed with one frame (a count).
pub const DESCRIPTORS: usize = 4;
/// One field of an item.
pub const FIELD_VALUE: usize = 1024 * 1024;
/// The name of an item, a field, a set or a recipient.
pub const NAME: usize = 256;
/// A `.keyloan.toml`.
pub const MANIFEST: usize = 64 * 1024;
/// A passphrase or a PIN.
pub const PASSPHRASE: usize = 1024;
/// `NAME=value` and its NUL, as the kernel limits it: `MAX_ARG_STRLEN`, execve(2).
pub const ENVIRONMENT_STRING: usize = 128 * 1024;
/// Sets named by one request (a count).
pub const SETS: usize = 64;
/// Variables picked by one request (a count).
pub const ONLY: usize = 1024;
/// Directories searched upwards for credentials (a count).
pub const DIRECTORIES: usize = 64;
/// The characters of a generated value (a count).
pub const GENERATED: usize = 1024;
/// An identity file of age's, or an ssh private key.
pub const IDENTITY: usize = 64 * 1024;
/// The longest time that anything lasts, in seconds: ten years.
pub const SECONDS: u64 = 3653 * 24 * 3600;
/// A message of the ssh-agent protocol without its length: what OpenSSH's agent takes, and its clients.
pub const SSH_MESSAGE: usize = 256 * 1024;
/// Keys in a list of an ssh agent (a count): OpenSSH's clients refuse a longer one.
pub const SSH_KEYS: usize = 2048;
/// Hops that the destinations of one ssh key name (a count), as in OpenSSH.
pub const SSH_DESTINATIONS: usize = 1024;
/// Certificates that come with the keys of one token (a count), as in OpenSSH.
pub const SSH_CERTIFICATES: usize = 1024;
/// Principals of an ssh certificate (a count), as in OpenSSH.
pub const SSH_PRINCIPALS: usize = 256;
/// The modulus of an RSA key, in bits.
pub const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// The public exponent of an RSA key, in bits. A larger one only makes verification slow.
pub const RSA_EXPONENT_BITS: usize = 33;
