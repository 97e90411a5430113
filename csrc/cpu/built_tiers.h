// Which tiers this build has: the build system defines those that the compiler can make.
#pragma once

#ifndef LEWM_HAVE_AVX2
#define LEWM_HAVE_AVX2 0
#endif
#ifndef LEWM_HAVE_AVX2_VNNI
#define LEWM_HAVE_AVX2_VNNI 0
#endif
#ifndef LEWM_HAVE_AVX512
#define LEWM_HAVE_AVX512 0
#endif
#ifndef LEWM_HAVE_AMX
#define LEWM_HAVE_AMX 0
#endif
#ifndef LEWM_HAVE_NEON
#define LEWM_HAVE_NEON 0
#endif
#ifndef LEWM_HAVE_NEON_DOT
#define LEWM_HAVE_NEON_DOT 0
#endif
