#![no_main]

hostel_fuzz_targets::program!(hostel_queue::fuzz::SQLITE_PAGE_TOKENS);
