
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * key_file: files that hold keys and secrets, as the configuration names them.
 */

#ifndef _NGX_HTTP_IOTHUB_KEY_FILE_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_KEY_FILE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


/*
 * Reads a file that holds secrets, at most 64 KB.  The name is taken
 * relative to the directory of nginx.conf and replaced by the full one.  A
 * file that others may read is warned about.  The text comes from the
 * temporary pool; the caller wipes it with ngx_explicit_memzero().
 * NGX_OK, or NGX_ERROR with the reason logged at emerg.
 */

ngx_int_t ngx_http_iothub_key_file_read(ngx_conf_t *cf, ngx_str_t *name,
    ngx_str_t *text);

/* Says at emerg what is wrong with such a file; line 0: with all of it. */

void ngx_http_iothub_key_file_bad(ngx_conf_t *cf, ngx_str_t *name,
    const char *reason, ngx_uint_t line);


#endif /* _NGX_HTTP_IOTHUB_KEY_FILE_H_INCLUDED_ */
