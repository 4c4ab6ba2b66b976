
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_conf.h"


#define NGX_HTTP_IOTHUB_CONF_FILE_MAX  65536


static ngx_int_t ngx_http_iothub_conf_full_name(ngx_conf_t *cf,
    ngx_str_t *name);
static ngx_int_t ngx_http_iothub_conf_read(ngx_conf_t *cf, ngx_file_t *file,
    ngx_str_t *text);


ngx_int_t
ngx_http_iothub_conf_read_secret(ngx_conf_t *cf, ngx_str_t *name,
    ngx_str_t *text)
{
    ngx_int_t   rc;
    ngx_file_t  file;

    if (ngx_http_iothub_conf_full_name(cf, name) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_memzero(&file, sizeof(ngx_file_t));
    file.name = *name;
    file.log = cf->log;

    file.fd = ngx_open_file(name->data, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);

    if (file.fd == NGX_INVALID_FILE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           ngx_open_file_n " \"%V\" failed", name);
        return NGX_ERROR;
    }

    rc = ngx_http_iothub_conf_read(cf, &file, text);

    if (ngx_close_file(file.fd) == NGX_FILE_ERROR) {
        ngx_log_error(NGX_LOG_ALERT, cf->log, ngx_errno,
                      ngx_close_file_n " \"%V\" failed", name);
    }

    return rc;
}


/*
 * nginx has two folders for relative names: that of its configuration, for
 * certificates and passwords, and its prefix, for all else.
 */

static ngx_int_t
ngx_http_iothub_conf_full_name(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_str_t        other;
    ngx_file_info_t  info;

    other = *name;

    if (ngx_conf_full_name(cf->cycle, name, 1) != NGX_OK
        || ngx_conf_full_name(cf->cycle, &other, 0) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_file_info(name->data, &info) == NGX_FILE_ERROR
        && ngx_errno == NGX_ENOENT
        && ngx_file_info(other.data, &info) != NGX_FILE_ERROR)
    {
        *name = other;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_conf_read(ngx_conf_t *cf, ngx_file_t *file, ngx_str_t *text)
{
    off_t    size;
    ssize_t  n;

    if (ngx_fd_info(file->fd, &file->info) == NGX_FILE_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           ngx_fd_info_n " \"%V\" failed", &file->name);
        return NGX_ERROR;
    }

    if (!ngx_is_file(&file->info)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is not a regular file", &file->name);
        return NGX_ERROR;
    }

    size = ngx_file_size(&file->info);

    if (size > NGX_HTTP_IOTHUB_CONF_FILE_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is too large for a file of keys or "
                           "secrets", &file->name);
        return NGX_ERROR;
    }

#if !(NGX_WIN32)

    if (file->info.st_mode & S_IROTH) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"%V\" may be read by others, it should have "
                           "mode 0600", &file->name);
    }

#endif

    text->data = ngx_pnalloc(cf->temp_pool, size + 1);
    if (text->data == NULL) {
        return NGX_ERROR;
    }

    n = ngx_read_file(file, text->data, (size_t) size, 0);

    if (n == NGX_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           ngx_read_file_n " \"%V\" failed", &file->name);
        return NGX_ERROR;
    }

    text->len = n;

    return NGX_OK;
}


void
ngx_http_iothub_conf_bad_file(ngx_conf_t *cf, ngx_str_t *name,
    const char *reason, ngx_uint_t line)
{
    if (line) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\", line %ui: %s",
                           name, line, reason);
    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\": %s", name, reason);
    }
}


ngx_int_t
ngx_http_iothub_conf_directive(ngx_conf_t *cf, ngx_module_t *module,
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
ngx_http_iothub_conf_set(ngx_conf_t *cf, ngx_module_t *module, void *conf,
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

    rc = ngx_http_iothub_conf_directive(cf, module, conf);

    cf->args = saved;

    return rc;
}
