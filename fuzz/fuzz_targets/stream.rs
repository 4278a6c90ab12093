//! Feeds [`frejus_fuzz::stream`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| frejus_fuzz::stream(data));
