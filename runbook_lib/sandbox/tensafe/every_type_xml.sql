-- A type that not every build has.

ALTER TABLE ops.every_type ADD COLUMN an_xml xml;
UPDATE ops.every_type SET an_xml = xml '<tenant id="1">  <name>A &amp; B</name></tenant>' WHERE id = 1;
UPDATE ops.every_type SET an_xml = xml '<?xml version="1.0"?><a/>' WHERE id = 2;
UPDATE ops.every_type SET an_xml = xml 'only text' WHERE id = 3;
