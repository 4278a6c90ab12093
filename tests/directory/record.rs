//! Toy records: sequence, end of validity, signature of the network's one key, body.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ed25519_dalek::{Signature, Signer, SigningKey};
use frejus::directory::Checked;
use frejus_overlay::id::{NodeId, RecordKey};

const SIGNER: [u8; 32] = [200; 32];

/// A valid record for `key`, for as long as `life`.
pub(crate) fn signed(key: &RecordKey, sequence: u64, life: Duration) -> Vec<u8> {
    signed_with_body(key, sequence, life, b"body")
}

pub(crate) fn signed_with_body(key: &RecordKey, sequence: u64, life: Duration, body: &[u8]) -> Vec<u8> {
    make(&SigningKey::from_bytes(&SIGNER), key, sequence, life, body)
}

/// A record that somebody else signed.
pub(crate) fn forged(key: &RecordKey, sequence: u64) -> Vec<u8> {
    make(&SigningKey::from_bytes(&[201; 32]), key, sequence, Duration::from_secs(3600), b"forged")
}

pub(crate) fn check(key: &RecordKey, value: &[u8]) -> Result<Checked, String> {
    let (head, rest) = value.split_at_checked(16).ok_or("too short")?;
    let (signature, body) = rest.split_first_chunk::<64>().ok_or("too short")?;
    SigningKey::from_bytes(&SIGNER)
        .verify(&message(key, head, body), &Signature::from_bytes(signature))
        .map_err(|_| "forged")?;
    let until = Duration::from_millis(u64::from_be_bytes(head[8..].try_into().expect("eight bytes")));
    let expires_in = until.checked_sub(now()).ok_or("expired")?;
    Ok(Checked { sequence: u64::from_be_bytes(head[..8].try_into().expect("eight bytes")), expires_in })
}

/// The node of a seed.
pub(crate) fn node_id(seed: u8) -> NodeId {
    NodeId(SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes())
}

fn make(signer: &SigningKey, key: &RecordKey, sequence: u64, life: Duration, body: &[u8]) -> Vec<u8> {
    let until = u64::try_from((now() + life).as_millis()).expect("before the year 584 million");
    let head = [sequence.to_be_bytes(), until.to_be_bytes()].concat();
    let signature = signer.sign(&message(key, &head, body));
    [head, signature.to_bytes().to_vec(), body.to_vec()].concat()
}

fn message(key: &RecordKey, head: &[u8], body: &[u8]) -> Vec<u8> {
    [&key.0, head, body].concat()
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}
