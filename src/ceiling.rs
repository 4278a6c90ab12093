//! The ceiling: a build whose transport keys seal nothing, to know how fast forwarding could be.
//!
//! Owns: what stands in for a key, and what keeps such a build from being taken for another one. It offers its cipher
//! beside the real ones, so two of its kind agree on it and nobody else does. Compiled with `--cfg frejus_null_cipher`
//! alone, for which there is no feature; `scripts/ceiling.sh` sets it. Never: in a release.

use frejus_overlay::agreement::Cipher;

use crate::failure::{ExitCode, Failure};
use crate::transport::aead::{self, KEY, TAG};

#[cfg(not(debug_assertions))]
compile_error!(
    "frejus_null_cipher is not for a release: scripts/ceiling.sh builds it with the profile `ceiling`"
);

/// The variable, and what it must say.
const CONSENT: (&str, &str) = ("FREJUS_NO_CIPHER", "insecure");

/// Says on standard error what this is, and starts only for those who know.
///
/// # Errors
/// Nobody said that they know.
pub(crate) fn confess(progress: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    if std::env::var_os(CONSENT.0).is_none_or(|said| said != CONSENT.1) {
        let mend = format!("use a release; for a benchmark set {}={}", CONSENT.0, CONSENT.1);
        return Err(Failure::new(ExitCode::Other, "this build has NO CIPHER and is insecure", mend));
    }
    tracing::error!(
        "NO CIPHER: whatever this build carries to another of its kind can be read and forged by anyone"
    );
    progress("INSECURE: this is a benchmark build without a cipher");
    Ok(())
}

/// A key, or none.
pub(crate) struct Key(Option<aead::Key>);

impl Key {
    pub(crate) fn new(cipher: Cipher, key: &[u8; KEY]) -> Self {
        Self((cipher != Cipher::None).then(|| aead::Key::new(cipher, key)))
    }

    /// As [`aead::Key::seal`]; without a cipher the tag is zero.
    pub(crate) fn seal(&self, counter: u64, message: &mut [u8]) {
        match &self.0 {
            Some(key) => key.seal(counter, message),
            None => message.iter_mut().rev().take(TAG).for_each(|byte| *byte = 0),
        }
    }

    /// As [`aead::Key::open`]; without a cipher the tag is not looked at.
    pub(crate) fn open(&self, counter: u64, message: &mut [u8]) -> Option<usize> {
        match &self.0 {
            Some(key) => key.open(counter, message),
            None => message.len().checked_sub(TAG),
        }
    }
}
