
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * conf: what reading a configuration needs in several rooms: files that hold
 * keys and secrets, and nginx's own directives set from code.
 */

#ifndef _NGX_HTTP_IOTHUB_CONF_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_CONF_H_INCLUDED_


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

ngx_int_t ngx_http_iothub_conf_read_secret(ngx_conf_t *cf, ngx_str_t *name,
    ngx_str_t *text);

/* Says at emerg what is wrong with such a file; line 0: with all of it. */

void ngx_http_iothub_conf_bad_file(ngx_conf_t *cf, ngx_str_t *name,
    const char *reason, ngx_uint_t line);

/*
 * Finds the directive cf->args[0] among those of an nginx module and sets it
 * in conf, with nginx's own check of the number of arguments.  NGX_OK;
 * NGX_DECLINED if the module has no such directive; NGX_ERROR, logged with
 * the current file and line.
 */

ngx_int_t ngx_http_iothub_conf_directive(ngx_conf_t *cf,
    ngx_module_t *module, void *conf);

/*
 * The same with a directive given as words, the last followed by NULL.
 * Words are not parsed: a "$" in them is nginx's variable sign.
 */

ngx_int_t ngx_http_iothub_conf_set(ngx_conf_t *cf, ngx_module_t *module,
    void *conf, const char *const *words);


#endif /* _NGX_HTTP_IOTHUB_CONF_H_INCLUDED_ */
