/* Preloaded into megatools: its libcurl must accept the emulator's certificate, so the option that
 * pins the service's public key (CURLOPT_PINNEDPUBLICKEY, 10230) is swallowed. Everything else is
 * passed on: curl_easy_setopt takes exactly one further argument, a long, a pointer or a 64-bit
 * offset, which all travel in one register on 64-bit machines. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>

typedef int (*setopt_fn)(void *, int, ...);

int curl_easy_setopt(void *handle, int option, ...)
{
    static setopt_fn real;
    va_list args;
    void *value;

    if (!real)
        real = (setopt_fn)dlsym(RTLD_NEXT, "curl_easy_setopt");
    va_start(args, option);
    value = va_arg(args, void *);
    va_end(args);
    if (option == 10230)
        return 0;
    return real(handle, option, value);
}
