//! Feeds [`frejus_fuzz::record`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| frejus_fuzz::record(data));
