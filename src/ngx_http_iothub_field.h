
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * field: variables that the user defines from the webhook by iothub_field.
 */

#ifndef _NGX_HTTP_IOTHUB_FIELD_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_FIELD_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


/*
 * The directive iothub_field $var LOCATOR... [default=text] [raw]; conf is
 * the module's main configuration.  Returns NGX_CONF_OK, NGX_CONF_ERROR, all
 * said, or a text.
 */

char *ngx_http_iothub_field(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);


#endif /* _NGX_HTTP_IOTHUB_FIELD_H_INCLUDED_ */
