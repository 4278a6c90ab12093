//! Feeds [`frejus_fuzz::igd`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| frejus_fuzz::igd(data));
