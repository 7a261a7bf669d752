/*
 * Polynomials over GF(2) are held with their bytes reversed, so that bit i of a register is the coefficient of
 * x^(127-i), and the powers of the hash key are multiplied by x beforehand, which makes up for the bit that a product
 * of reversed polynomials is off by (Gueron and Kounavis, "Intel Carry-Less Multiplication Instruction and its Usage
 * for Computing the GCM Mode", 2014, algorithm 5).
 */
#include "node/base/crypto_aesgcm.h"

#include <string.h>

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

#define GCM_TARGET target("aes,pclmul,sse4.1,vaes,vpclmulqdq,avx512f,avx512bw,avx512vl")
#define GCM_CODE __attribute__((GCM_TARGET))
#define GCM_INLINE static inline __attribute__((always_inline, GCM_TARGET))
#define WIDE_BYTES (AESGCM_WIDTH * AESGCM_BLOCK_BYTES)
#define VECTORS 4 /* of four blocks, in WIDE_BYTES */
#define XOR3 0x96 /* the table of vpternlog for a ^ b ^ c */

bool crypto_aesgcm_works(void)
{
    /* whether the system saves the wide registers is in the builtin's answer; not every compiler knows the others */
    unsigned a, b, c, d;
    if (!__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl"))
        return false;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_AES) || !(c & bit_PCLMUL))
        return false;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & bit_VAES) && (c & bit_VPCLMULQDQ);
}

/* ---- the hash: SP 800-38D, section 6.4 ---- */

GCM_INLINE __m128i reverse_bytes(__m128i block)
{
    return _mm_shuffle_epi8(block, _mm_set_epi64x(0x0001020304050607, 0x08090a0b0c0d0e0f));
}

/* x^128 = x^7 + x^2 + x + 1, reversed: the upper half reduces 64 bits at a time. */
GCM_INLINE __m128i modulus(void)
{
    return _mm_set_epi64x((long long)0xc200000000000000, 1);
}

/* A product of 256 bits, as its low, middle and high part, modulo the polynomial. */
GCM_INLINE __m128i reduce(__m128i low, __m128i middle, __m128i high)
{
    __m128i folded = _mm_xor_si128(_mm_shuffle_epi32(low, 0x4e), _mm_clmulepi64_si128(modulus(), low, 0x01));
    middle = _mm_xor_si128(middle, folded);
    folded = _mm_xor_si128(_mm_shuffle_epi32(middle, 0x4e), _mm_clmulepi64_si128(modulus(), middle, 0x01));
    return _mm_xor_si128(high, folded);
}

GCM_INLINE __m128i multiply(__m128i a, __m128i b)
{
    __m128i middle = _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x01), _mm_clmulepi64_si128(a, b, 0x10));
    return reduce(_mm_clmulepi64_si128(a, b, 0x00), middle, _mm_clmulepi64_si128(a, b, 0x11));
}

/* The same for the products of four lanes, which are then added up. */
GCM_INLINE __m128i reduce_wide(__m512i low, __m512i middle, __m512i high)
{
    const __m512i moduli = _mm512_broadcast_i32x4(modulus());
    __m512i product = _mm512_clmulepi64_epi128(moduli, low, 0x01);
    middle = _mm512_ternarylogic_epi64(middle, _mm512_shuffle_epi32(low, 0x4e), product, XOR3);
    product = _mm512_clmulepi64_epi128(moduli, middle, 0x01);
    high = _mm512_ternarylogic_epi64(high, _mm512_shuffle_epi32(middle, 0x4e), product, XOR3);
    __m256i half = _mm256_xor_si256(_mm512_castsi512_si256(high), _mm512_extracti64x4_epi64(high, 1));
    return _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* (hash + block 0) * H^16 + block 1 * H^15 + ... + block 15 * H */
GCM_INLINE __m128i hash_wide(__m128i hash, const __m512i powers[VECTORS], const __m512i blocks[VECTORS])
{
    const __m512i reverse = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0001020304050607, 0x08090a0b0c0d0e0f));
    __m512i low = _mm512_setzero_si512();
    __m512i middle = _mm512_setzero_si512();
    __m512i high = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (unsigned i = 0; i < VECTORS; i++) {
        __m512i some = _mm512_shuffle_epi8(blocks[i], reverse);
        if (i == 0)
            some = _mm512_xor_si512(some, _mm512_zextsi128_si512(hash));
        low = _mm512_xor_si512(low, _mm512_clmulepi64_epi128(some, powers[i], 0x00));
        middle = _mm512_ternarylogic_epi64(middle, _mm512_clmulepi64_epi128(some, powers[i], 0x01),
                                           _mm512_clmulepi64_epi128(some, powers[i], 0x10), XOR3);
        high = _mm512_xor_si512(high, _mm512_clmulepi64_epi128(some, powers[i], 0x11));
    }
    return reduce_wide(low, middle, high);
}

/* ---- the cipher: FIPS 197 ---- */

GCM_INLINE __m128i load(const uint8_t *block)
{
    return _mm_loadu_si128((const __m128i *)block);
}

GCM_INLINE void store(uint8_t *ret_block, __m128i block)
{
    _mm_storeu_si128((__m128i *)ret_block, block);
}

GCM_INLINE __m128i encrypt(const struct crypto_aesgcm *gcm, __m128i block)
{
    block = _mm_xor_si128(block, load(gcm->round_keys[0]));
    for (unsigned i = 1; i < AESGCM_ROUNDS; i++)
        block = _mm_aesenc_si128(block, load(gcm->round_keys[i]));
    return _mm_aesenclast_si128(block, load(gcm->round_keys[AESGCM_ROUNDS]));
}

/* Section 5.2: each word is the one before, `mixed` for the first, plus the one eight words ago. */
GCM_INLINE __m128i expand(__m128i eight_ago, __m128i mixed)
{
    eight_ago = _mm_xor_si128(eight_ago, _mm_slli_si128(eight_ago, 4));
    eight_ago = _mm_xor_si128(eight_ago, _mm_slli_si128(eight_ago, 8));
    return _mm_xor_si128(eight_ago, mixed);
}

/* The last word of `before`, substituted, turned and with the constant of the round. */
GCM_INLINE __m128i turned_word(__m128i before, unsigned round)
{
    __m128i substituted = _mm_shuffle_epi32(_mm_aeskeygenassist_si128(before, 0), 0xff);
    return _mm_xor_si128(substituted, _mm_set1_epi32(1 << (round / 2 - 1)));
}

GCM_INLINE __m128i substituted_word(__m128i before)
{
    return _mm_shuffle_epi32(_mm_aeskeygenassist_si128(before, 0), 0xaa);
}

GCM_INLINE void expand_key(struct crypto_aesgcm *gcm, const uint8_t key[AESGCM_KEY_BYTES])
{
    memcpy(gcm->round_keys, key, AESGCM_KEY_BYTES);
    for (unsigned i = 2; i <= AESGCM_ROUNDS; i++) {
        __m128i before = load(gcm->round_keys[i - 1]);
        __m128i mixed = i % 2 == 0 ? turned_word(before, i) : substituted_word(before);
        store(gcm->round_keys[i], expand(load(gcm->round_keys[i - 2]), mixed));
    }
}

/* Times x: reversed, that is a shift to the left. */
GCM_INLINE __m128i double_key(__m128i key)
{
    uint64_t low = (uint64_t)_mm_extract_epi64(key, 0);
    uint64_t high = (uint64_t)_mm_extract_epi64(key, 1);
    uint64_t carry = 0 - (high >> 63);
    high = (high << 1 | low >> 63) ^ (carry & 0xc200000000000000);
    low = low << 1 ^ (carry & 1);
    return _mm_set_epi64x((long long)high, (long long)low);
}

GCM_CODE void crypto_aesgcm_set_key(struct crypto_aesgcm *gcm, const uint8_t key[AESGCM_KEY_BYTES])
{
    expand_key(gcm, key);
    __m128i hash_key = double_key(reverse_bytes(encrypt(gcm, _mm_setzero_si128())));
    __m128i power = hash_key;
    for (unsigned i = AESGCM_WIDTH; i > 0; i--) {
        store(gcm->powers[i - 1], power);
        power = multiply(power, hash_key);
    }
}

/* ---- the mode: SP 800-38D, section 7 ---- */

/* Of one message. What is added but for the last time is a multiple of whole blocks. */
struct stream {
    const struct crypto_aesgcm *gcm;
    bool opens;
    __m128i counter; /* the block to be encrypted next, its last word in the CPU's order so that it can be added to */
    __m128i first;   /* the counter's first block, encrypted: for the tag */
    __m128i hash;
};

GCM_INLINE __m512i swap_counter(__m512i counter)
{
    return _mm512_shuffle_epi8(counter, _mm512_broadcast_i32x4(_mm_set_epi64x(0x0c0d0e0f0b0a0908, 0x0706050403020100)));
}

GCM_INLINE __m128i counter_block(__m128i counter)
{
    return _mm512_castsi512_si128(swap_counter(_mm512_castsi128_si512(counter)));
}

GCM_INLINE __m128i next_count(__m128i counter)
{
    return _mm_add_epi32(counter, _mm_set_epi32(1, 0, 0, 0));
}

/* The first `len` bytes, at most a block; zeros follow. */
GCM_INLINE __m128i load_part(const uint8_t *data, size_t len)
{
    return _mm_maskz_loadu_epi8((__mmask16)((1u << len) - 1), data);
}

GCM_INLINE void add_to_hash(struct stream *stream, __m128i block)
{
    __m128i hash_key = load(stream->gcm->powers[AESGCM_WIDTH - 1]);
    stream->hash = multiply(_mm_xor_si128(stream->hash, reverse_bytes(block)), hash_key);
}

GCM_INLINE void begin(struct stream *stream, const uint8_t nonce[AESGCM_NONCE_BYTES], const uint8_t *ad, size_t ad_len)
{
    stream->counter = _mm_insert_epi32(load_part(nonce, AESGCM_NONCE_BYTES), 1, 3);
    stream->first = encrypt(stream->gcm, counter_block(stream->counter));
    stream->counter = next_count(stream->counter);
    stream->hash = _mm_setzero_si128();
    for (size_t done = 0; done < ad_len; done += AESGCM_BLOCK_BYTES)
        add_to_hash(stream, load_part(ad + done, ad_len - done < 16 ? ad_len - done : 16));
}

/* What a counter and those after it encrypt to, for four vectors of four blocks. */
GCM_INLINE void encrypt_wide(const __m512i round_keys[AESGCM_ROUNDS + 1], __m512i *counters, __m512i ret[VECTORS])
{
    const __m512i four = _mm512_broadcast_i32x4(_mm_set_epi32(4, 0, 0, 0));
#pragma GCC unroll 4
    for (unsigned i = 0; i < VECTORS; i++) {
        ret[i] = _mm512_xor_si512(swap_counter(*counters), round_keys[0]);
        *counters = _mm512_add_epi32(*counters, four);
    }
#pragma GCC unroll 13
    for (unsigned round = 1; round < AESGCM_ROUNDS; round++)
#pragma GCC unroll 4
        for (unsigned i = 0; i < VECTORS; i++)
            ret[i] = _mm512_aesenc_epi128(ret[i], round_keys[round]);
#pragma GCC unroll 4
    for (unsigned i = 0; i < VECTORS; i++)
        ret[i] = _mm512_aesenclast_epi128(ret[i], round_keys[AESGCM_ROUNDS]);
}

/* As many times WIDE_BYTES as there are. What was sealed is hashed one step later, so that hashing does not wait for
 * the encryption of the same bytes. */
GCM_CODE static size_t add_wide(struct stream *stream, const uint8_t *in, size_t len, uint8_t *out)
{
    __m512i round_keys[AESGCM_ROUNDS + 1], powers[VECTORS], from[VECTORS], key[VECTORS];
    __m512i to[VECTORS] = {0};
#pragma GCC unroll 15
    for (unsigned i = 0; i <= AESGCM_ROUNDS; i++)
        round_keys[i] = _mm512_broadcast_i32x4(load(stream->gcm->round_keys[i]));
#pragma GCC unroll 4
    for (unsigned i = 0; i < VECTORS; i++)
        powers[i] = _mm512_loadu_si512(stream->gcm->powers[4 * i]);
    __m512i counters = _mm512_add_epi32(_mm512_broadcast_i32x4(stream->counter),
                                        _mm512_set_epi32(3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0));
    __m128i hash = stream->hash;
    size_t done = 0;
    for (; len - done >= WIDE_BYTES; done += WIDE_BYTES) {
        encrypt_wide(round_keys, &counters, key);
        if (!stream->opens && done > 0)
            hash = hash_wide(hash, powers, to);
#pragma GCC unroll 4
        for (unsigned i = 0; i < VECTORS; i++) {
            from[i] = _mm512_loadu_si512(in + done + sizeof from[i] * i);
            to[i] = _mm512_xor_si512(key[i], from[i]);
        }
        if (stream->opens)
            hash = hash_wide(hash, powers, from);
#pragma GCC unroll 4
        for (unsigned i = 0; i < VECTORS; i++)
            _mm512_storeu_si512(out + done + sizeof to[i] * i, to[i]);
    }
    stream->hash = !stream->opens && done > 0 ? hash_wide(hash, powers, to) : hash;
    stream->counter = _mm512_castsi512_si128(counters);
    return done;
}

/* A block, or what there is of the last. */
GCM_INLINE void add_block(struct stream *stream, const uint8_t *in, size_t len, uint8_t *out)
{
    __mmask16 mask = (__mmask16)((1u << len) - 1);
    __m128i from = load_part(in, len);
    __m128i key = encrypt(stream->gcm, counter_block(stream->counter));
    __m128i to = _mm_maskz_mov_epi8(mask, _mm_xor_si128(from, key));
    _mm_mask_storeu_epi8(out, mask, to);
    add_to_hash(stream, stream->opens ? from : to);
    stream->counter = next_count(stream->counter);
}

GCM_CODE static void add(struct stream *stream, const uint8_t *in, size_t len, uint8_t *out)
{
    size_t done = len >= WIDE_BYTES ? add_wide(stream, in, len, out) : 0;
    for (; done < len; done += AESGCM_BLOCK_BYTES)
        add_block(stream, in + done, len - done < AESGCM_BLOCK_BYTES ? len - done : AESGCM_BLOCK_BYTES, out + done);
}

/* Lengths are hashed in bits; reversed, the first of the two is the upper half. */
GCM_INLINE void finish(const struct stream *stream, size_t ad_len, size_t len, uint8_t ret_tag[AESGCM_TAG_BYTES])
{
    __m128i lengths = _mm_set_epi64x((long long)(ad_len * 8), (long long)(len * 8));
    __m128i hash_key = load(stream->gcm->powers[AESGCM_WIDTH - 1]);
    __m128i hash = multiply(_mm_xor_si128(stream->hash, lengths), hash_key);
    store(ret_tag, _mm_xor_si128(reverse_bytes(hash), stream->first));
}

GCM_CODE void crypto_aesgcm_seal(const struct crypto_aesgcm *gcm, const uint8_t nonce[AESGCM_NONCE_BYTES],
                                 const void *ad, size_t ad_bytes, const void *head, size_t head_bytes,
                                 const void *plain, size_t len_bytes, uint8_t *ret_sealed)
{
    struct stream stream = {.gcm = gcm};
    begin(&stream, nonce, ad, ad_bytes);
    size_t rest = head_bytes % AESGCM_BLOCK_BYTES;
    add(&stream, head, head_bytes - rest, ret_sealed);
    size_t taken = 0;
    if (rest > 0) { /* the block that has the end of the one and the beginning of the other */
        uint8_t both[AESGCM_BLOCK_BYTES];
        taken = len_bytes < sizeof both - rest ? len_bytes : sizeof both - rest;
        memcpy(both, (const uint8_t *)head + head_bytes - rest, rest);
        if (taken > 0)
            memcpy(both + rest, plain, taken);
        add(&stream, both, rest + taken, ret_sealed + head_bytes - rest);
    }
    if (len_bytes > taken)
        add(&stream, (const uint8_t *)plain + taken, len_bytes - taken, ret_sealed + head_bytes + taken);
    finish(&stream, ad_bytes, head_bytes + len_bytes, ret_sealed + head_bytes + len_bytes);
}

GCM_CODE void crypto_aesgcm_open(const struct crypto_aesgcm *gcm, const uint8_t nonce[AESGCM_NONCE_BYTES],
                                 const void *ad, size_t ad_bytes, const uint8_t *sealed, size_t len_bytes,
                                 uint8_t *ret_plain, uint8_t ret_tag[AESGCM_TAG_BYTES])
{
    struct stream stream = {.gcm = gcm, .opens = true};
    begin(&stream, nonce, ad, ad_bytes);
    add(&stream, sealed, len_bytes, ret_plain);
    finish(&stream, ad_bytes, len_bytes, ret_tag);
}

#else

bool crypto_aesgcm_works(void)
{
    return false;
}

void crypto_aesgcm_set_key(struct crypto_aesgcm *gcm, const uint8_t key[AESGCM_KEY_BYTES])
{
    (void)gcm, (void)key;
}

void crypto_aesgcm_seal(const struct crypto_aesgcm *gcm, const uint8_t nonce[AESGCM_NONCE_BYTES], const void *ad,
                        size_t ad_bytes, const void *head, size_t head_bytes, const void *plain, size_t len_bytes,
                        uint8_t *ret_sealed)
{
    (void)gcm, (void)nonce, (void)ad, (void)ad_bytes, (void)head, (void)head_bytes, (void)plain, (void)len_bytes,
        (void)ret_sealed;
}

void crypto_aesgcm_open(const struct crypto_aesgcm *gcm, const uint8_t nonce[AESGCM_NONCE_BYTES], const void *ad,
                        size_t ad_bytes, const uint8_t *sealed, size_t len_bytes, uint8_t *ret_plain,
                        uint8_t ret_tag[AESGCM_TAG_BYTES])
{
    (void)gcm, (void)nonce, (void)ad, (void)ad_bytes, (void)sealed, (void)len_bytes, (void)ret_plain, (void)ret_tag;
}

#endif
