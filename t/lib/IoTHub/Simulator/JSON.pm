# Copyright (C) the ngx_http_iothub_module authors

# JSON text, written fast: the journal has a line for every exchange, and
# JSON::PP takes longer for one than the rest of the simulator.  Strings are
# bytes; a byte above 0x7f is written as the character of the same number,
# so that any body survives the way through a JSON file.

package IoTHub::Simulator::JSON;

use v5.36;
use strict;
use warnings;

use B ();
use Exporter qw(import);
use JSON::PP ();

our @EXPORT_OK = qw(json json_object json_string json_decode);

my %ESCAPE = (
    '"'  => '\\"',
    '\\' => '\\\\',
    "\n" => '\\n',
    "\r" => '\\r',
    "\t" => '\\t',
);
for my $byte (0 .. 0x1f, 0x7f .. 0xff) {
    $ESCAPE{chr $byte} //= sprintf '\\u%04x', $byte;
}

my $DECODER = JSON::PP->new->utf8->allow_nonref;


sub json_string($bytes) {
    return 'null' unless defined $bytes;
    $bytes =~ s/(["\\\x00-\x1f\x7f-\xff])/$ESCAPE{$1}/g;
    $bytes =~ s/([^\x00-\xff])/escape_wide(ord $1)/ge;
    return qq("$bytes");
}


sub escape_wide($code) {
    return sprintf '\\u%04x', $code if $code < 0x10000;
    $code -= 0x10000;
    return sprintf '\\u%04x\\u%04x', 0xd800 | $code >> 10,
        0xdc00 | $code & 0x3ff;
}


# An object whose members keep their order.

sub json_object(@pairs) {
    my @members;
    while (my ($name, $value) = splice @pairs, 0, 2) {
        push @members, json_string($name) . ':' . json($value);
    }
    return bless { text => '{' . join(',', @members) . '}' },
        'IoTHub::Simulator::JSON::Text';
}


# \1 and \0 are true and false; numbers are what Perl made as numbers.

sub json($value) {
    my $type = ref $value;

    if ($type eq '') {
        return 'null' unless defined $value;
        my $flags = B::svref_2object(\$value)->FLAGS;
        return "$value"
            if $flags & (B::SVp_IOK | B::SVp_NOK)
            && !($flags & B::SVp_POK);
        return json_string($value);
    }

    return $value->{text} if $type eq 'IoTHub::Simulator::JSON::Text';
    return $$value ? 'true' : 'false'
        if $type eq 'SCALAR' || $type eq 'JSON::PP::Boolean';
    return '[' . join(',', map { json($_) } @$value) . ']'
        if $type eq 'ARRAY';
    return json_object(map { $_ => $value->{$_} } sort keys %$value)->{text}
        if $type eq 'HASH';

    die "no JSON for a $type\n";
}


# Returns undef where the text is not JSON.

sub json_decode($text) {
    return scalar eval { $DECODER->decode($text) };
}

1;
