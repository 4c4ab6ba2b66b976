# Copyright (C) the ngx_http_iothub_module authors

# What the hub says when it refuses: its codes, its two body formats.
#
# https://learn.microsoft.com/azure/iot-hub/troubleshoot-error-codes and
# https://learn.microsoft.com/rest/api/iothub/common-error-codes

package IoTHub::Simulator::Errors;

use v5.36;
use strict;
use warnings;

use Exporter qw(import);
use POSIX qw(strftime);

use IoTHub::Simulator::JSON qw(json json_object);

our @EXPORT_OK = qw(error_answer error_body error_by_code error_by_name
    error_by_status html_body random_hex);

# A status is a code's first three digits.  The first of a status is what a
# fault rule means that names the status only.

my @ERRORS = (
    [400004, 'ArgumentInvalid', 'BadRequest'],
    [400000, 'GenericBadRequest', 'BadRequest'],
    [400001, 'InvalidProtocolVersion', 'BadRequest'],
    [400003, 'InvalidOperation', 'BadRequest'],
    [400005, 'ArgumentNull', 'BadRequest'],
    [400006, 'IotHubFormatError', 'BadRequest'],
    [400011, 'DeviceDefinedMultipleTimes', 'BadRequest'],
    [400013, 'BulkRegistryOperationFailure', 'BadRequest'],
    [400021, 'RequestCanceled', 'BadRequest'],
    [400024, 'RequestTimedOut', 'BadRequest'],
    [400029, 'ConnectionForcefullyClosed', 'BadRequest'],
    [400030, 'ConnectionRejected', 'BadRequest'],
    [400103, 'InvalidContentEncodingOrType', 'BadRequest'],
    [401002, 'IotHubUnauthorizedAccess', 'Unauthorized'],
    [401000, 'GenericUnauthorized', 'Unauthorized'],
    [401001, 'IotHubNotFound', 'Unauthorized'],
    [401003, 'IotHubUnauthorized', 'Unauthorized'],
    [403002, 'IotHubQuotaExceeded', 'Total number of messages on IotHub'
        . ' exceeded the allocated quota.'],
    [403000, 'GenericForbidden', 'Forbidden'],
    [403001, 'IotHubSuspended', 'Forbidden'],
    [403010, 'OperationNotAllowedInCurrentTier', 'Forbidden'],
    [403012, 'DeviceDisabled', 'The device is disabled.'],
    [404001, 'DeviceNotFound', 'The specified device is not registered.'],
    [404000, 'GenericNotFound', 'NotFound'],
    [404012, 'IotHubFailingOver', 'The hub is failing over.'],
    [405000, 'GenericMethodNotAllowed', 'MethodNotAllowed'],
    [405102, 'OperationNotAvailableInCurrentTier', 'MethodNotAllowed'],
    [408000, 'GenericRequestTimeout', 'RequestTimeout'],
    [409001, 'DeviceAlreadyExists', 'Conflict'],
    [409000, 'GenericConflict', 'Conflict'],
    [409102, 'DeviceLocked', 'Conflict'],
    [412001, 'PreconditionFailed', 'PreconditionFailed'],
    [413001, 'MessageTooLarge', 'The message is larger than the hub takes.'],
    [413002, 'TooManyDevices', 'RequestEntityTooLarge'],
    [415000, 'GenericUnsupportedMediaType', 'UnsupportedMediaType'],
    [429001, 'ThrottlingException', 'The request has been throttled. Wait 10'
        . ' seconds and try again. Operation type: CRUD'],
    [429000, 'GenericTooManyRequests', 'TooManyRequests'],
    [429002, 'ThrottleBacklogLimitExceeded', 'TooManyRequests'],
    [429003, 'ThrottlingBacklogTimeout', 'The request has been throttled.'
        . ' Wait 10 seconds and try again. Operation type: CRUD'],
    [429004, 'ThrottlingMaxActiveJobCountExceeded', 'TooManyRequests'],
    [429005, 'DeviceThrottlingLimitExceeded', 'TooManyRequests'],
    [500001, 'ServerError', 'InternalServerError'],
    [500000, 'GenericServerError', 'InternalServerError'],
    [500008, 'GenericTimeout', 'InternalServerError'],
    [502000, 'GenericBadGateway', 'BadGateway'],
    [503001, 'ServiceUnavailable', 'ServiceUnavailable'],
    [503000, 'GenericServiceUnavailable', 'ServiceUnavailable'],
    [503005, 'ServerBusy', 'ServiceUnavailable'],
    [503006, 'Restoring', 'ServiceUnavailable'],
    [504101, 'GatewayTimeout', 'GatewayTimeout'],
    [504000, 'GenericGatewayTimeout', 'GatewayTimeout'],
);

my (%BY_CODE, %BY_NAME, %BY_STATUS);
for my $row (@ERRORS) {
    my ($code, $name, $text) = @$row;
    my $error = { code => $code, name => $name, text => $text };
    $BY_CODE{$code} = $BY_NAME{$name} = $error;
    $BY_STATUS{int $code / 1000} //= $error;
}


sub error_by_code($code)     { return $BY_CODE{$code} }
sub error_by_name($name)     { return $BY_NAME{$name} }
sub error_by_status($status) { return $BY_STATUS{$status} }


sub random_hex($digits) {
    return join '', map { sprintf '%x', rand 16 } 1 .. $digits;
}


# Format 1 is what the registry and the device endpoints say; format 2, JSON
# within a string, comes from the gateways in front of them.

sub error_body($error, $format = 1, $text = undef) {
    my @now = gmtime;

    if ($format eq '2') {
        my $time = strftime '%Y-%m-%dT%H:%M:%S', @now;
        return json(json_object(
            Message => json(json_object(
                errorCode    => 0 + $error->{code},
                message      => $text // $error->{text},
                trackingId   => uc(random_hex(32))
                    . "-G2:-TimeStamp:$time.27+00:00",
                timestampUtc => "$time.27+00:00",
                info         => undef,
            )),
            ExceptionMessage => '',
        ));
    }

    return json(json_object(
        Message => "ErrorCode:$error->{name};" . ($text // $error->{text}),
        ExceptionMessage => 'Tracking ID:' . random_hex(32)
            . '-G:11-TimeStamp:' . strftime('%m/%d/%Y %H:%M:%S', @now),
    ));
}


# What HTTP.sys says in front of the hub.

sub html_body($title, $text) {
    return '<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 4.01//EN"'
        . qq("http://www.w3.org/TR/html4/strict.dtd">\r\n)
        . "<HTML><HEAD><TITLE>$title</TITLE></HEAD>\r\n"
        . "<BODY><h2>$title</h2>\r\n<hr><p>$text</p>\r\n</BODY></HTML>\r\n";
}


sub error_answer($code, $text = undef, $format = 1) {
    my $error = $BY_CODE{$code} or die "no error $code\n";

    return {
        status  => int $code / 1000,
        error   => $error->{name},
        type    => 'application/json; charset=utf-8',
        headers => [['iothub-errorcode', $error->{name}]],
        body    => error_body($error, $format, $text),
    };
}

1;
