//! Feeds [`frejus_fuzz::code`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| frejus_fuzz::code(data));
