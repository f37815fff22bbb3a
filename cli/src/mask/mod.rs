mod filter;
mod patterns;
