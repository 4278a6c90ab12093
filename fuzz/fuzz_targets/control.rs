//! Feeds [`frejus_fuzz::control`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| frejus_fuzz::control(data));
