
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * directive: nginx's own directives, set from code.
 */

#ifndef _NGX_HTTP_IOTHUB_DIRECTIVE_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_DIRECTIVE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


/*
 * Finds the directive cf->args[0] among those of an nginx module and sets it
 * in conf, with nginx's own check of the number of arguments.  NGX_OK;
 * NGX_DECLINED if the module has no such directive; NGX_ERROR, logged with
 * the current file and line.
 */

ngx_int_t ngx_http_iothub_directive(ngx_conf_t *cf,
    ngx_module_t *module, void *conf);

/*
 * The same with a directive given as words, the last followed by NULL.
 * Words are not parsed: a "$" in them is nginx's variable sign.
 */

ngx_int_t ngx_http_iothub_directive_set(ngx_conf_t *cf, ngx_module_t *module,
    void *conf, const char *const *words);


#endif /* _NGX_HTTP_IOTHUB_DIRECTIVE_H_INCLUDED_ */
