//! Feeds [`frejus_fuzz::connect`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| frejus_fuzz::connect(data));
