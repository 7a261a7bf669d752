#include "node/base/crypto_sha256x2.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

#define SHA_CODE __attribute__((target("sha,sse4.1")))
#define SHA_INLINE static inline __attribute__((always_inline, target("sha,sse4.1")))

bool crypto_sha256x2_works(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1))
        return false;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}

/* FIPS 180-4, section 4.2.2 */
static const uint32_t ROUND_CONSTANTS[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* One stream. The instructions want the state's words in this order. */
struct lane {
    __m128i abef;
    __m128i cdgh;
    __m128i words[4]; /* of the message schedule: the last sixteen */
};

SHA_INLINE void load_state(struct lane *lane, const uint32_t state[8])
{
    __m128i badc = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xb1);
    __m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1b);
    lane->abef = _mm_alignr_epi8(badc, hgfe, 8);
    lane->cdgh = _mm_blend_epi16(hgfe, badc, 0xf0);
}

SHA_INLINE void store_state(const struct lane *lane, uint32_t state[8])
{
    __m128i feba = _mm_shuffle_epi32(lane->abef, 0x1b);
    __m128i dchg = _mm_shuffle_epi32(lane->cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

/* Words 4 * step to 4 * step + 3 of the schedule (section 6.2.2, step 1). */
SHA_INLINE __m128i next_words(struct lane *lane, const uint8_t *block, unsigned step)
{
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i *words = &lane->words[step % 4];
    if (step < 4) {
        *words = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(block + (size_t)16 * step)), big_endian);
    } else {
        __m128i before = lane->words[(step + 3) % 4];
        __m128i seven_ago = _mm_alignr_epi8(before, lane->words[(step + 2) % 4], 4);
        *words = _mm_add_epi32(_mm_sha256msg1_epu32(*words, lane->words[(step + 1) % 4]), seven_ago);
        *words = _mm_sha256msg2_epu32(*words, before);
    }
    return *words;
}

SHA_INLINE void four_rounds(struct lane *lane, const uint8_t *block, unsigned step)
{
    __m128i constants = _mm_load_si128((const __m128i *)(ROUND_CONSTANTS + (size_t)4 * step));
    __m128i sum = _mm_add_epi32(next_words(lane, block, step), constants);
    lane->cdgh = _mm_sha256rnds2_epu32(lane->cdgh, lane->abef, sum);
    lane->abef = _mm_sha256rnds2_epu32(lane->abef, lane->cdgh, _mm_shuffle_epi32(sum, 0x0e));
}

SHA_CODE void crypto_sha256x2_add(uint32_t state_a[8], const uint8_t *data_a, uint32_t state_b[8],
                                  const uint8_t *data_b, size_t blocks)
{
    struct lane a;
    struct lane b;
    load_state(&a, state_a);
    load_state(&b, state_b);
    for (; blocks > 0; blocks--) {
        const struct lane a_before = a;
        const struct lane b_before = b;
        /* Eight rounds of the one and eight of the other: a tenth faster than four and four, and than sixteen. */
#pragma GCC unroll 8
        for (unsigned step = 0; step < 16; step += 2) {
            four_rounds(&a, data_a, step);
            four_rounds(&a, data_a, step + 1);
            four_rounds(&b, data_b, step);
            four_rounds(&b, data_b, step + 1);
        }
        a.abef = _mm_add_epi32(a.abef, a_before.abef);
        a.cdgh = _mm_add_epi32(a.cdgh, a_before.cdgh);
        b.abef = _mm_add_epi32(b.abef, b_before.abef);
        b.cdgh = _mm_add_epi32(b.cdgh, b_before.cdgh);
        data_a += SHA256X2_BLOCK_BYTES;
        data_b += SHA256X2_BLOCK_BYTES;
    }
    store_state(&a, state_a);
    store_state(&b, state_b);
}

#else

bool crypto_sha256x2_works(void)
{
    return false;
}

void crypto_sha256x2_add(uint32_t state_a[8], const uint8_t *data_a, uint32_t state_b[8], const uint8_t *data_b,
                         size_t blocks)
{
    (void)state_a, (void)data_a, (void)state_b, (void)data_b, (void)blocks;
}

#endif
