//! The names of key types and signature algorithms, and which belongs to which.

/// The curves of RFC 5656 section 10.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Curve {
    Nistp256,
    Nistp384,
    Nistp521,
}

impl Curve {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nistp256 => "nistp256",
            Self::Nistp384 => "nistp384",
            Self::Nistp521 => "nistp521",
        }
    }

    pub const fn bits(self) -> usize {
        match self {
            Self::Nistp256 => 256,
            Self::Nistp384 => 384,
            Self::Nistp521 => 521,
        }
    }

    /// Bytes of a coordinate or a scalar.
    pub const fn bytes(self) -> usize {
        self.bits().div_ceil(8)
    }
}

/// What a key is, with or without a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// RFC 8709.
    Ed25519,
    /// RFC 5656.
    Ecdsa(Curve),
    /// RFC 4253 section 6.6.
    Rsa,
    /// Kept in a security key; OpenSSH's PROTOCOL.u2f.
    SkEd25519,
    /// The same with ECDSA on nistp256.
    SkEcdsa,
}

impl KeyType {
    const ALL: [Self; 7] = [
        Self::Ed25519,
        Self::Ecdsa(Curve::Nistp256),
        Self::Ecdsa(Curve::Nistp384),
        Self::Ecdsa(Curve::Nistp521),
        Self::Rsa,
        Self::SkEd25519,
        Self::SkEcdsa,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ssh-ed25519",
            Self::Ecdsa(Curve::Nistp256) => "ecdsa-sha2-nistp256",
            Self::Ecdsa(Curve::Nistp384) => "ecdsa-sha2-nistp384",
            Self::Ecdsa(Curve::Nistp521) => "ecdsa-sha2-nistp521",
            Self::Rsa => "ssh-rsa",
            Self::SkEd25519 => "sk-ssh-ed25519@openssh.com",
            Self::SkEcdsa => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    /// The type of a certificate for such a key: PROTOCOL.certkeys.
    pub const fn certificate_name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ssh-ed25519-cert-v01@openssh.com",
            Self::Ecdsa(Curve::Nistp256) => "ecdsa-sha2-nistp256-cert-v01@openssh.com",
            Self::Ecdsa(Curve::Nistp384) => "ecdsa-sha2-nistp384-cert-v01@openssh.com",
            Self::Ecdsa(Curve::Nistp521) => "ecdsa-sha2-nistp521-cert-v01@openssh.com",
            Self::Rsa => "ssh-rsa-cert-v01@openssh.com",
            Self::SkEd25519 => "sk-ssh-ed25519-cert-v01@openssh.com",
            Self::SkEcdsa => "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
        }
    }

    /// The type that a blob opens with, and whether it is that of a certificate.
    pub(super) fn named(name: &str) -> Option<(Self, bool)> {
        Self::ALL.into_iter().find_map(|key_type| match name {
            _ if name == key_type.name() => Some((key_type, false)),
            _ if name == key_type.certificate_name() => Some((key_type, true)),
            _ => None,
        })
    }

    /// Whether the private half is kept in a security key.
    pub const fn is_sk(self) -> bool {
        matches!(self, Self::SkEd25519 | Self::SkEcdsa)
    }
}

/// How a signature is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignatureAlgorithm {
    /// RFC 8709 section 6.
    Ed25519,
    /// RFC 5656 section 3.1.2: the curve says the hash.
    Ecdsa(Curve),
    /// RFC 4253 section 6.6: RSA with SHA-1.
    RsaSha1,
    /// RFC 8332 section 3.
    RsaSha256,
    /// RFC 8332 section 3.
    RsaSha512,
    /// PROTOCOL.u2f.
    SkEd25519,
    /// PROTOCOL.u2f.
    SkEcdsa,
}

impl SignatureAlgorithm {
    const ALL: [Self; 9] = [
        Self::Ed25519,
        Self::Ecdsa(Curve::Nistp256),
        Self::Ecdsa(Curve::Nistp384),
        Self::Ecdsa(Curve::Nistp521),
        Self::RsaSha1,
        Self::RsaSha256,
        Self::RsaSha512,
        Self::SkEd25519,
        Self::SkEcdsa,
    ];

    /// The type of the keys that make it.
    pub const fn key_type(self) -> KeyType {
        match self {
            Self::Ed25519 => KeyType::Ed25519,
            Self::Ecdsa(curve) => KeyType::Ecdsa(curve),
            Self::RsaSha1 | Self::RsaSha256 | Self::RsaSha512 => KeyType::Rsa,
            Self::SkEd25519 => KeyType::SkEd25519,
            Self::SkEcdsa => KeyType::SkEcdsa,
        }
    }

    /// The name that a signature blob opens with.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RsaSha256 => "rsa-sha2-256",
            Self::RsaSha512 => "rsa-sha2-512",
            _ => self.key_type().name(),
        }
    }

    /// The name in a login with a certificate: PROTOCOL.certkeys.
    pub const fn certificate_name(self) -> &'static str {
        match self {
            Self::RsaSha256 => "rsa-sha2-256-cert-v01@openssh.com",
            Self::RsaSha512 => "rsa-sha2-512-cert-v01@openssh.com",
            _ => self.key_type().certificate_name(),
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| name == algorithm.name())
    }

    /// The algorithm that a login names, for a plain key or one with a certificate.
    pub(super) fn of_login(name: &str, certified: bool) -> Option<Self> {
        let told = |algorithm: &Self| if certified { algorithm.certificate_name() } else { algorithm.name() };
        Self::ALL.into_iter().find(|algorithm| name == told(algorithm))
    }
}
