//! Feeds [`frejus_fuzz::stun`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| frejus_fuzz::stun(data));
