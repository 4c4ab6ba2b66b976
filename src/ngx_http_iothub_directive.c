
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_directive.h"


ngx_int_t
ngx_http_iothub_directive(ngx_conf_t *cf, ngx_module_t *module,
    void *conf)
{
    char           *rv;
    ngx_str_t      *value;
    ngx_uint_t      n, valid;
    ngx_command_t  *cmd;

    value = cf->args->elts;
    n = cf->args->nelts;

    for (cmd = module->commands; cmd->name.len; cmd++) {
        if (cmd->name.len == value[0].len
            && ngx_strncmp(cmd->name.data, value[0].data, value[0].len) == 0)
        {
            break;
        }
    }

    if (cmd->name.len == 0) {
        return NGX_DECLINED;
    }

    /* as ngx_conf_handler() does */

    if (cmd->type & NGX_CONF_ANY) {
        valid = 1;

    } else if (cmd->type & NGX_CONF_FLAG) {
        valid = (n == 2);

    } else if (cmd->type & NGX_CONF_1MORE) {
        valid = (n >= 2);

    } else if (cmd->type & NGX_CONF_2MORE) {
        valid = (n >= 3);

    } else {
        valid = (n <= NGX_CONF_MAX_ARGS
                 && (cmd->type & (NGX_CONF_NOARGS << (n - 1))));
    }

    if (!valid) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid number of arguments in \"%V\" directive",
                           &value[0]);
        return NGX_ERROR;
    }

    rv = cmd->set(cf, cmd, conf);

    if (rv == NGX_CONF_OK) {
        return NGX_OK;
    }

    if (rv != NGX_CONF_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\" directive %s",
                           &value[0], rv);
    }

    return NGX_ERROR;
}


ngx_int_t
ngx_http_iothub_directive_set(ngx_conf_t *cf, ngx_module_t *module, void *conf,
    const char *const *words)
{
    size_t        len;
    ngx_int_t     rc;
    ngx_str_t    *value;
    ngx_array_t  *args, *saved;

    args = ngx_array_create(cf->pool, 4, sizeof(ngx_str_t));
    if (args == NULL) {
        return NGX_ERROR;
    }

    for ( /* void */ ; *words; words++) {

        value = ngx_array_push(args);
        if (value == NULL) {
            return NGX_ERROR;
        }

        len = ngx_strlen(*words);

        /* nginx's setters expect a final NUL, and may write */

        value->data = ngx_pnalloc(cf->pool, len + 1);
        if (value->data == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(value->data, *words, len + 1);
        value->len = len;
    }

    saved = cf->args;
    cf->args = args;

    rc = ngx_http_iothub_directive(cf, module, conf);

    cf->args = saved;

    return rc;
}
