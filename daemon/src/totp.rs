//! Time-based one-time passwords, RFC 6238, for the second factor of registry logins.

use data_encoding::BASE32_NOPAD;
use hmac::{Hmac, Mac};
use keyloan_protocol::secret::SecretBytes;
use zeroize::Zeroizing;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TotpError {
    #[error("it is neither an otpauth://totp/… address nor a key in base32")]
    Form,
    #[error("its {0} is none that RFC 6238 knows")]
    Parameter(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
}

/// What a registry shows as a QR code or as a key to type.
pub(crate) struct Totp {
    key: Zeroizing<Vec<u8>>,
    algorithm: Algorithm,
    digits: u32,
    /// Seconds.
    period: u64,
}

impl Totp {
    /// Reads an `otpauth://totp/LABEL?secret=…&digits=…` address or a bare base32 key, which means SHA-1, six
    /// digits and thirty seconds.
    pub(crate) fn parse(value: &SecretBytes) -> Result<Self, TotpError> {
        let text = str::from_utf8(value.expose()).map_err(|_| TotpError::Form)?.trim();
        let mut totp = Self { key: Zeroizing::default(), algorithm: Algorithm::Sha1, digits: 6, period: 30 };
        let Some(address) = text.strip_prefix("otpauth://totp/") else {
            totp.key = key(text)?;
            return Ok(totp);
        };
        let (_, query) = address.split_once('?').ok_or(TotpError::Form)?;
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "secret" => totp.key = key(value)?,
                "algorithm" => {
                    totp.algorithm = match value.to_ascii_uppercase().as_str() {
                        "SHA1" => Algorithm::Sha1,
                        "SHA256" => Algorithm::Sha256,
                        "SHA512" => Algorithm::Sha512,
                        _ => return Err(TotpError::Parameter("algorithm")),
                    };
                }
                "digits" => {
                    let digits = value.parse().ok().filter(|digits| (6..=8).contains(digits));
                    totp.digits = digits.ok_or(TotpError::Parameter("number of digits"))?;
                }
                "period" => {
                    let period = value.parse().ok().filter(|period| (1..=3600).contains(period));
                    totp.period = period.ok_or(TotpError::Parameter("period"))?;
                }
                // Issuer, image and what else applications add.
                _ => {}
            }
        }
        if totp.key.is_empty() { Err(TotpError::Form) } else { Ok(totp) }
    }

    /// The code at a time (seconds since 1970), and the seconds until the next one.
    pub(crate) fn code(&self, now: u64) -> (Zeroizing<String>, u64) {
        let counter = (now / self.period).to_be_bytes();
        let mac = Zeroizing::new(match self.algorithm {
            Algorithm::Sha1 => mac::<Hmac<sha1::Sha1>>(&self.key, &counter),
            Algorithm::Sha256 => mac::<Hmac<sha2::Sha256>>(&self.key, &counter),
            Algorithm::Sha512 => mac::<Hmac<sha2::Sha512>>(&self.key, &counter),
        });
        // RFC 4226, 5.3: dynamic truncation.
        let offset = mac.last().map_or(0, |last| usize::from(last & 0xf));
        let mut word = [0; 4];
        if let Some(four) = mac.get(offset..offset + 4) {
            word.copy_from_slice(four);
        }
        let number = (u32::from_be_bytes(word) & 0x7fff_ffff) % 10_u32.pow(self.digits);
        let width = self.digits as usize;
        (Zeroizing::new(format!("{number:0width$}")), self.period - now % self.period)
    }
}

/// Base32 as people copy it: in any case, with spaces and with or without padding.
fn key(text: &str) -> Result<Zeroizing<Vec<u8>>, TotpError> {
    let mut plain = Zeroizing::new(Vec::with_capacity(text.len()));
    plain.extend(
        text.bytes().filter(|byte| !matches!(byte, b' ' | b'-' | b'=')).map(|byte| byte.to_ascii_uppercase()),
    );
    let key = Zeroizing::new(BASE32_NOPAD.decode(&plain).map_err(|_| TotpError::Form)?);
    if key.is_empty() { Err(TotpError::Form) } else { Ok(key) }
}

fn mac<M: Mac + hmac::digest::KeyInit>(key: &[u8], counter: &[u8]) -> Vec<u8> {
    // HMAC takes a key of any length.
    let Ok(mut mac) = <M as Mac>::new_from_slice(key) else { return Vec::new() };
    mac.update(counter);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totp(text: &str) -> Result<Totp, TotpError> {
        Totp::parse(&SecretBytes::copy_of(text.as_bytes()))
    }

    #[test]
    fn the_vectors_of_rfc_6238_come_out() {
        let seeds = [("SHA1", 20), ("SHA256", 32), ("SHA512", 64)];
        let codes = [
            (59, ["94287082", "46119246", "90693936"]),
            (1_111_111_109, ["07081804", "68084774", "25091201"]),
            (1_111_111_111, ["14050471", "67062674", "99943326"]),
            (1_234_567_890, ["89005924", "91819424", "93441116"]),
            (2_000_000_000, ["69279037", "90698825", "38618901"]),
            (20_000_000_000, ["65353130", "77737706", "47863826"]),
        ];
        for (column, (algorithm, length)) in seeds.into_iter().enumerate() {
            let seed: Vec<u8> = b"1234567890".iter().copied().cycle().take(length).collect();
            let secret = BASE32_NOPAD.encode(&seed);
            let address = format!("otpauth://totp/x?secret={secret}&algorithm={algorithm}&digits=8");
            let totp = totp(&address).unwrap();
            for (now, expected) in codes {
                assert_eq!(totp.code(now).0.as_str(), expected[column], "{algorithm} at {now}");
            }
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in
            ["", "otpauth://totp/x", "otpauth://totp/x?digits=6", "otpauth://hotp/x?secret=MFRGG", "0189"]
        {
            assert_eq!(totp(text).err(), Some(TotpError::Form), "{text}");
        }
        let parameter = |query: &str| totp(&format!("otpauth://totp/x?secret=MFRGG&{query}")).err();
        assert_eq!(parameter("digits=99"), Some(TotpError::Parameter("number of digits")));
        assert_eq!(parameter("period=0"), Some(TotpError::Parameter("period")));
        assert_eq!(parameter("algorithm=MD5"), Some(TotpError::Parameter("algorithm")));
        assert_eq!(totp("mfrg g-zdf").unwrap().code(59).1, 1);
    }
}
