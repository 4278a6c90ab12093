//! Feeds [`frejus_fuzz::fragment`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| frejus_fuzz::fragment(data));
